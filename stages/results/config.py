"""Options of the import of scores. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, option


@dataclass(frozen=True, kw_only=True)
class ImportScoresConfig:
    source: Path = argument("the scores of another program: CSV, or JSON lines")
    manifest: Path = option("the images that are scored: manifest artifact or Parquet file")
    name: str = option("what tables call these scores: CSAD, UniVAD, ...")
    out: Path = option("where the scores go")
    maps: Path | None = option("where the anomaly maps go, which the column --map-column names", None)
    image_column: str = option("name of the column with the image's path or name", "image")
    score_column: str = option("name of the column with the score, higher = more anomalous", "score")
    map_column: str = option("name of the column with the file of the anomaly map", "map")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
