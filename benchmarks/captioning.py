"""`adcli caption --engine vllm` against a bare `LLM.chat` over the same requests, prepared beforehand.

    ADCLI_TORCHVISION=declare .venv-vllm/bin/python -m benchmarks.captioning [IMAGES ROUNDS]

A tiny random Qwen2-VL, seeded pictures. The bare call gets its pictures decoded and sized and keeps every
answer in memory; ours reads files, decodes ahead, and writes rows as they come. Caches are emptied before
each run. Printed: the ratio of the medians, without and with what the bare call's preparation took, and the
memory of this process over our runs.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import stages.captions.caption as caption
from benchmarks.tiny import tiny_qwen2_vl
from stages.base.config import RunOptions
from stages.base.prompts import load_prompt
from stages.base.seeds import row_seed
from stages.datasets.folder import FolderConfig
from stages.datasets.folder import run as index
from stages.datasets.images import load_rgb
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from stages.vlm.pixels import fit

QUIET = RunOptions(quiet=True)
TOKENS = 16


def main(n: int, rounds: int) -> None:
    """Print seconds of every run, the ratio and the memory."""
    with tempfile.TemporaryDirectory() as name:
        at = Path(name)
        make_pictures(at / "pictures", n)
        index(FolderConfig(root=at / "pictures", out=at / "m"), QUIET)
        options = EngineOptions(engine="vllm", dtype="float32", max_model_len=1024, max_num_seqs=32, gpu_memory=0.3)
        engine = make_engine(str(tiny_qwen2_vl(at / "qwen")), options)
        caption.make_engine = lambda *_: engine  # loaded once, for both
        files = sorted((at / "pictures").iterdir())
        ours, bare, preparation, memory = [], [], [], []
        for k in range(rounds):
            started = time.monotonic()
            messages, parameters = prepared(engine, files)
            preparation.append(time.monotonic() - started)
            bare.append(timed(engine, lambda m=messages, p=parameters: engine._llm.chat(m, p, use_tqdm=False)))
            ours.append(timed(engine, lambda k=k: stage(at, k, memory)))
            print(
                f"preparing {preparation[-1]:.1f} s   bare LLM.chat {bare[-1]:.1f} s   adcli caption {ours[-1]:.1f} s",
                flush=True,
            )
    ratio = statistics.median(ours) / statistics.median(bare)
    whole = statistics.median(ours) / statistics.median(map(sum, zip(preparation, bare, strict=True)))
    print(
        f"{n} images, {TOKENS} tokens each: adcli caption takes {ratio:.2f} times a bare LLM.chat"
        f" (target <= 1.05), {whole:.2f} times one that prepares its pictures first"
    )
    quarters = [memory[i * (len(memory) - 1) // 4] for i in range(5)]
    print(f"resident memory over our runs, MB: {' '.join(f'{m:.0f}' for m in quarters)}")


def make_pictures(folder: Path, n: int) -> None:
    """n photographs-like pictures (smooth, 180 x 240 px) as JPEG."""
    from PIL import Image

    folder.mkdir()
    for i in range(n):
        coarse = np.random.default_rng(i).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((240, 180), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg")


def prepared(engine, files: list[Path]) -> tuple[list, list]:
    """What the bare call is given: messages with sized pictures, and sampling parameters per request."""
    from PIL import Image
    from vllm import SamplingParams

    prompt = load_prompt("general")
    messages = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_pil", "image_pil": Image.fromarray(fit(load_rgb(f), engine._limits))},
                    {"type": "text", "text": prompt.text},
                ],
            }
        ]
        for f in files
    ]
    parameters = [
        SamplingParams(temperature=0, max_tokens=TOKENS, seed=row_seed(0, f"pictures/{f.name}", "general", 0))
        for f in files
    ]
    return messages, parameters


def stage(at: Path, k: int, memory: list[float]) -> None:
    """Our stage, once; appends this process's resident MB after every reply."""
    run = caption.Artifact.write

    def write(self, row, **more):
        run(self, row, **more)
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)

    caption.Artifact.write = write
    try:
        config = caption.CaptionConfig(
            manifest=at / "m", out=at / f"c{k}", vlm="tiny", temperature=0.0, max_tokens=TOKENS
        )
        caption.run(config, QUIET)
    finally:
        caption.Artifact.write = run


def timed(engine, work) -> float:
    """Seconds of one run with empty caches."""
    engine._llm.reset_prefix_cache()
    engine._llm.reset_mm_cache()
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] if len(sys.argv) > 2 else ("1000", "5")))
