"""Options of both evaluations. Imports neither torch nor pyarrow."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, option

OUTPUTS, PIXELS = "Outputs that are to be elsewhere than in the folder --out", "Pixel metrics, with --maps"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    scores: Path = argument("scores artifact, a folder of them, or a Parquet file")
    manifest: Path = option("labels, splits, tasks")
    out: Path = option("folder for the results; a name that ends in .parquet: the table of metrics alone")
    maps: Path | None = option("anomaly maps, for pixel metrics: artifact, a folder of them, or a Parquet file", None)
    report: Path | None = option("HTML page to write", None, OUTPUTS)
    tables: Path | None = option("folder for the tables as CSV, Markdown and LaTeX", None, OUTPUTS)
    thresholds: Path | None = option("table of thresholds to write, with where each comes from", None, OUTPUTS)
    heatmaps: Path | None = option(
        "folder for a picture of every map over its image; of images without masks: the 200 highest scores of a task",
        None,
        OUTPUTS,
    )
    ranking: Path | None = option("CSV of the test images, the most anomalous first", None, OUTPUTS)
    checklist: Path | None = option(
        "CSV of captions for a person to check (VID-AD's Table 6): made where it is not there yet, then filled by hand"
        " and read",
        None,
    )
    root: Path | None = option("where the manifest's paths start (pictures of the report)", None)
    partial: bool = option("while scores are still being made: evaluate the tasks that are finished", False)
    pro_limit: float = option("false positive rate up to which PRO integrates", 0.3, PIXELS)
    pro_200: bool = option("also PRO as most published code approximates it (200 thresholds)", False, PIXELS)
    pixel_size: int = option("evaluate pixels at N x N, as much published code does; 0 = at the masks' size", 0, PIXELS)
    workers: int = option("processes for pixel metrics, one category each", 1, PIXELS)
    resamples: int = option("bootstrap resamples per interval; 0 = no intervals", 1000)
    seed: int = option("of the bootstrap", 0)


@dataclass(frozen=True, kw_only=True)
class EvaluateQaConfig:
    questions: Path = option("the questions, with the right answers")
    answers: Path = option("answers artifact, a folder of them, or a Parquet file")
    judgements: Path | None = option(
        "judgements of these answers, and of the questions' own choices where margins of"
        " Eq. 5's pairs are wanted: artifact, a folder of them, or a Parquet file",
        None,
    )
    manifest: Path | None = option(
        "data set, category and files of the images; without it the image ids name data set"
        " and category, and the report has no pictures",
        None,
    )
    out: Path = option("folder for the results; a name that ends in .parquet: the table of metrics alone")
    report: Path | None = option("HTML page to write", None, OUTPUTS)
    tables: Path | None = option("folder for the tables as CSV, Markdown and LaTeX", None, OUTPUTS)
    encoder: str = option("of the sentence similarity: minilm, a directory or a hub id; none = leave it out", "minilm")
    root: Path | None = option("where the manifest's paths start (pictures of the report)", None)
    resamples: int = option("bootstrap resamples per interval; 0 = no intervals", 1000)
    seed: int = option("of the bootstrap", 0)
