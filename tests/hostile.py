"""Values that lead elsewhere or run code where they are not taken as text, and tables that hold them."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts.maps import to_row
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.evaluate.images import EvaluateConfig

QUIET = RunOptions(quiet=True)
HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "/",
    "a/b",
    "a_b",
    "../../x",
    "../../../../x",
    "/etc/x",
    "~",
    "-rf",
    "_hidden",
    "a\0b",
    ".hidden",
    "a\\b",
    "C:\\x",
    "CON ",
    "é",
    "e\u0301",
    "가",
    "x" * 300,
    "x" * 299 + "y",
    "%none",
    "%empty",
    "a\nb",
    "a.",
    "a ",
    "x.png",
    "x",
    "x.png/y",
    "x/y",
    "patches",
    "%~",
    "<script>alert(1)</script>",
    "a|b",
    "=1+1",
    "+1",
    "@x",
    "`x`",
    "#x",
    "$x_{",
    "$\\frac{$",
    "'\"><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "mean",
]
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=40)


def listing(folder):
    """Path -> digest of a file, None for a folder, of all that lies below."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
        for p in folder.rglob("*")
    }


def write(path, table, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path


def images(at, names, categories=("c",), dataset="d", method="m", **config):
    """A manifest of one image per name, every second one anomalous with a mask, with scores and maps."""
    at.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(at / "i.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(at / "k.png")
    manifest = [
        {
            "image_id": name,
            "path": "i.png",
            "dataset": dataset,
            "category": categories[n % len(categories)],
            "split": "test",
            "label": int(n // len(categories) % 2),
            "width": 8,
            "height": 8,
            "mask_paths": ["k.png"] * (n // len(categories) % 2),
            "defect": name,
        }
        for n, name in enumerate(names)
    ]
    scores = [
        {
            "image_id": name,
            "method": method,
            "score": float(n),
            "response": name,
            "neighbours": [{"image_id": name, "distance": 0.0, "text": name, "missing": [], "extra": []}],
        }
        for n, name in enumerate(names)
    ]
    maps = [to_row((name, method), np.full((8, 8), n) + mask / 255) for n, name in enumerate(names)]
    return EvaluateConfig(
        **{
            "scores": write(at / "s.parquet", SCORES, scores),
            "manifest": write(at / "m.parquet", MANIFEST, manifest),
            "maps": write(at / "p.parquet", MAPS, maps),
            "out": at / "out" / "e",
            "root": at,
            "resamples": 0,
            "tables": at / "out" / "t",
            "report": at / "out" / "r.html",
            "heatmaps": at / "out" / "h",
            "thresholds": at / "out" / "x",
        }
        | config
    )
