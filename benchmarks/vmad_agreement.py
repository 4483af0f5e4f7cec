"""Is a trained VMAD the same after saving, loading and merging? Tiny LLaVA and SAM with random weights.

    python -m benchmarks.vmad_agreement TILES RUN [IMAGES]

TILES: the magnetic tiles; RUN: a new folder for everything that is made; IMAGES: how many are compared, 64. A model is
trained for a few steps on masks and descriptions; all that was trained is then moved at random, or every image would
get the same answer; and it answers as it stands in memory. Then `adcli score`, a new process each time, answers from
the checkpoint, from the one with LoRA merged, from both in bfloat16, and, as a control that must differ, from the
checkpoint with its LoRA set to zero. Printed: how many texts are the same as in memory, how many there are, and the
largest difference of two probabilities in a mask.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.datasets.magnetic_tile import MagneticTileConfig
from stages.datasets.magnetic_tile import run as index
from stages.datasets.manifest import Image, read_manifest
from stages.training.saved_models import FOLDER
from stages.training.torch_setup import prepare_torch
from stages.vmad.config import FinetuneVmadConfig
from stages.vmad.train import write_merged

MOST, BATCH, QUERY = 24, 8, "description"
AWAY = 0.1  # standard deviation of the random move
Said = dict[str, tuple[str, object]]  # image id -> (text, mask's probabilities)


def main(tiles: Path, run: Path, count: int) -> None:
    """Make, train, compare, print."""
    from pipelines.demo_models.random_vmad import tiny_deep_llava, tiny_sam

    make_folder(run)
    tiny_deep_llava(run / "llava")
    tiny_sam(run / "sam", 128)
    tile = MagneticTileConfig(root=tiles, out=run / "all", train_fraction=0.05, train_defects=0.2)
    index(tile, RunOptions(quiet=True))
    rows = [r for r in read_table(run / "all", MANIFEST).to_pylist() if r["split"] == "test"]
    chosen = [r for label in (0, 1) for r in [r for r in rows if r["label"] == label][: count // 2]]
    pq.write_table(pa.Table.from_pylist(chosen, schema=MANIFEST.schema), run / "compared.parquet")
    compared = read_manifest(run / "compared.parquet", tiles).images
    train = [i for i in read_manifest(run / "all", tiles).images if i.split == "train"]
    first = in_memory(run, train, compared)
    write_merged(run / "trained", run / "merged")
    without_lora(run / "trained" / FOLDER, run / "without")
    print(f"| | same text, of {len(compared)} | largest difference in a mask |\n|---|---|---|")
    print(f"| as trained, in memory ({len({t for t, _ in first.values()})} different texts) | {len(first)} | 0 |")
    for name, checkpoint, precision in (
        ("loaded, new process", "trained", "fp32"),
        ("merged, new process", "merged", "fp32"),
        ("loaded, bf16", "trained", "bf16"),
        ("merged, bf16", "merged", "bf16"),
        ("control: LoRA at zero", "without", "fp32"),
    ):
        found = by_command(run, tiles, checkpoint, precision)
        same = sum(found[i][0] == text for i, (text, _) in first.items())
        furthest = max(float(abs(found[i][1] - mask).max()) for i, (_, mask) in first.items())
        print(f"| {name} | {same} | {furthest:.1e} |", flush=True)


def in_memory(run: Path, train: list[Image], compared: tuple[Image, ...]) -> Said:
    """Train, move, save below run/trained, and answer with the model that is there."""
    prepare_torch()
    import torch

    from stages.datasets.images import load_rgb
    from stages.vmad.build import read_llava, text_of
    from stages.vmad.data import samples_of
    from stages.vmad.model import trainable
    from stages.vmad.score import model_input, predict, prompt_about
    from stages.vmad.train import fit

    config = FinetuneVmadConfig(
        manifest=run / "all",
        out=run / "trained",
        llava=str(run / "llava"),
        sam=str(run / "sam"),
        heads=4,
        depth=1,
        boxes=4,
        drawn=2,
        epochs=1,
        batch_size=8,
        micro_batch=8,
        learning_rate=3e-3,
        save_steps=100_000,
    )
    samples = samples_of(train, ("segmentation", "answering"))
    trainer, save = fit(config, train, samples, None, print, "cpu", "fp32")
    model = trainer.model.eval()
    with torch.no_grad():
        for p in trainable(model).values():
            p += AWAY * torch.randn_like(p)
    save(run / "trained" / FOLDER)
    text = text_of(*read_llava(config.llava, ""), config.settings(), config.llava)
    found: Said = {}
    for start in range(0, len(compared), BATCH):
        few = compared[start : start + BATCH]
        prompts = [text.prompt(prompt_about(i, QUERY)) for i in few]
        answers = predict(model, text, [model_input(model, load_rgb(i.file)) for i in few], prompts, MOST, "fp32")
        found |= {i.image_id: (a.response, a.map.numpy()) for i, a in zip(few, answers, strict=True)}
    return found


def by_command(run: Path, tiles: Path, checkpoint: str, precision: str) -> Said:
    """What `adcli score` says in a process of its own."""
    from stages.artifacts.maps import read_maps

    out = run / f"{checkpoint}-{precision}"
    options = {
        "--method": "vmad",
        "--checkpoint": run / checkpoint,
        "--root": tiles,
        "--out": out / "scores",
        "--maps": out / "maps",
        "--query": QUERY,
        "--max-tokens": MOST,
        "--batch-size": BATCH,
        "--precision": precision,
        "--device": "cpu",
    }
    words = [str(w) for option in options.items() for w in option]
    subprocess.run(
        [sys.executable, "-m", "adcli", "score", str(run / "compared.parquet"), *words, "--quiet"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    texts = {r["image_id"]: r["response"] for r in read_table(out / "scores", SCORES).to_pylist()}
    return {i: (texts[i], m) for (i, _), m in read_maps(out / "maps", {(i, "vmad") for i in texts})}


def without_lora(checkpoint: Path, target: Path) -> None:
    """A copy whose LoRA adds nothing."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, target)
    file = target / "adapter" / "adapter_model.safetensors"
    save_file({n: t * 0 if "lora_B" in n else t for n, t in load_file(file).items()}, file)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    prepare_torch()
    main(Path(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], 64)[0]))
