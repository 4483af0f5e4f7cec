"""Tables whose page has everything: two methods, two categories, defects, masks, maps, captions, answers, failures."""

import numpy as np

from stages.artifacts.maps import to_row
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.evaluate.images import EvaluateConfig
from tests.hostile import write

SAID = "lvlm/m/1-shot"  # the method with answers of its own
GOOD = (1, 1.5, 2, 2.5, 3)  # scores of the good images held out: their line is 2.8


def world(at, save_image, scores=(5, 4, 2.9, 2.7, 2, 1), method="padim"):
    """One category `bolt` and one method with maps. The even test images are anomalous, with a mask; the last one that
    has a score cannot be read, and one more has no score."""
    at.mkdir(exist_ok=True)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    save_image(at / "mask.png", mask)
    manifest, rows, maps = [], [], []
    for n, score in enumerate((*GOOD, *scores, None)):
        new = n >= len(GOOD)
        place = n - len(GOOD)
        bad = new and place % 2 == 0
        name = f"{'new' if new else 'good'}-{place if new else n}.png"
        if n != len(GOOD) + len(scores) - 1:
            save_image(at / name, n)
        manifest.append(
            {
                "image_id": f"d/{name}",
                "path": name,
                "dataset": "d",
                "category": "bolt",
                "split": "test" if new else "val",
                "label": int(bad),
                "defect": ("scratch", "dent")[place // 2 % 2] if bad else None,
                "width": 60,
                "height": 40,
                "mask_paths": ["mask.png"] if bad else [],
            }
        )
        rows.append({"image_id": f"d/{name}", "method": method, "score": score and float(score)})
        rows[-1] |= {"error": None if score else "the camera was off"}
        if score:
            maps.append(to_row((f"d/{name}", method), np.linspace(0, score, 24).reshape(4, 6)))
    return manifest, rows, maps


def config(at, manifest, rows, maps=(), **more):
    return EvaluateConfig(
        **{
            "scores": write(at / "s.parquet", SCORES, rows),
            "manifest": write(at / "m.parquet", MANIFEST, manifest),
            "maps": write(at / "p.parquet", MAPS, list(maps)) if maps else None,
            "root": at,
            "out": at / "metrics",
            "report": at / "report.html",
            "ranking": at / "ranking.csv",
            "resamples": 0,
        }
        | more
    )
