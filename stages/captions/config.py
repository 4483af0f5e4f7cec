"""Options of the stages that write captions and contradict them. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, option
from stages.vlm.options import EngineOptions


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(EngineOptions):
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("where the captions go")
    vlm: str = option("scene, a short name (qwen2-vl, llava-1.5-13b, ...), a hub id or a directory", "scene")
    prompt: str = option(
        "prompt id, text file, or folder with one per category (fruits.txt or Fruits_prompt.txt); auto ="
        " vidad/models/<category> for VID-AD (with scene vidad/<category>), magnetic-tile for that data set,"
        " else general",
        "auto",
    )
    questions: Path | None = option("only the images that these questions are about (SAGE's facts)", None)
    samples: int = option("texts per image", 1)
    temperature: float = option("0 is greedy; the paper draws at 0.001", 0.001)
    top_p: float = option("nucleus mass", 0.95)
    max_tokens: int = option("longest answer, tokens", 512)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of sampled texts", 0)


@dataclass(frozen=True, kw_only=True)
class NegativesConfig(EngineOptions):
    captions: Path = argument("the captions of the same images")
    manifest: Path = option("which images are normal training images of which task")
    out: Path = option("where the negatives go")
    rewriter: str = option("rules, or a model: short name, hub id or directory", "rules")
    prompt: str = option("for a model: prompt id or text file with the field {text}", "vidad/rewrite")
    temperature: float = option("for a model (the paper's 0.9)", 0.9)
    top_p: float = option("for a model: nucleus mass", 0.95)
    max_tokens: int = option("for a model: longest answer, tokens", 512)
    keep_unchecked: bool = option(
        "for a model: keep its first answer, whatever it is, as the paper does; rows without edits broke a constraint",
        False,
    )
    seed: int = option("other seed, other contradictions", 0)
