"""Options of the LVLM paper's method, and what can be checked of them without a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stages.base.config import argument, option
from stages.base.errors import InputError
from stages.datasets.config import RULES
from stages.vlm.factory import check_engine
from stages.vlm.options import EngineOptions

MOST_SHOTS = 4
PROMPTS = ("specific", "generic", "description")


@dataclass(frozen=True, kw_only=True)
class LvlmConfig(EngineOptions):
    presets: ClassVar = {  # appendix A.1
        "paper": {
            "vlm": "qwen2-vl-72b-awq",
            "engine": "vllm",
            "tensor_parallel": 0,  # the paper's two A100 of 40 GiB, or one GPU that holds it
            "max_num_seqs": 5,
            "max_model_len": 7000,
            "min_pixels": 768 * 28 * 28,
            "max_pixels": 1024 * 28 * 28,
            "temperature": 0.3,
            "max_tokens": 1024,
        },
    }
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("where the scores go")
    method: str = option("lvlm", "lvlm")
    name: str = option("what tables call this run; by default lvlm/<model>/<shots>-shot and what else was chosen", "")
    vlm: str = option("scene, a short name (`adcli models`), a hub id or a directory", "scene")
    shots: int = option(f"reference images, 0 to {MOST_SHOTS}", 1)
    reference: str = option(f"which: {', '.join(RULES)} normal training image", "first")
    prompt: str = option(
        "specific (the paper's sentence for the category, where it has one), generic, or"
        " description (of the object; for --shots 0)",
        "specific",
    )
    splits: str = option("images to ask about, comma-separated: test, train, val; thresholds need train", "test")
    temperature: float = option("0 is greedy", 0.0)
    top_p: float = option("nucleus mass", 1.0)
    max_tokens: int = option("longest answer, tokens", 512)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of sampled answers and of random references", 0)

    def check(self) -> None:
        """Raises InputError for an unknown value, a number of shots out of range, or as `check_engine` does."""
        if not 0 <= self.shots <= MOST_SHOTS:
            raise InputError(f"--shots {self.shots}: expected 0 to {MOST_SHOTS}")
        if self.reference not in RULES:
            raise InputError(f"--reference {self.reference}: expected {', '.join(RULES)}")
        if self.prompt not in PROMPTS:
            raise InputError(f"--prompt {self.prompt}: expected {', '.join(PROMPTS)}")
        if self.vlm == "scene" and self.shots != 1:
            raise InputError("--vlm scene compares an image with one reference: --shots 1")
        check_engine(self.vlm, self)
