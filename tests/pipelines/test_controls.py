"""pipelines/controls and pipelines/demo_models."""

import subprocess
import sys

import pytest

from tests.pipelines.recorded import ROOT


def test_the_control_shuffles_what_is_known_of_training_images_alone():
    from pipelines.controls.shuffled_masks import SHUFFLED, shuffled

    rows = [
        {
            "image_id": str(i),
            "path": f"{i}.png",
            "split": "train" if i < 20 else "test",
            "label": i % 2,
            "defect": f"d{i}",
            "mask_paths": [f"m{i}"],
        }
        for i in range(25)
    ]
    new = shuffled(rows)
    assert new[20:] == rows[20:] and [r["path"] for r in new] == [r["path"] for r in rows]
    known = [tuple(str(r[k]) for k in SHUFFLED) for r in rows[:20]]
    dealt = [tuple(str(r[k]) for k in SHUFFLED) for r in new[:20]]
    assert sorted(dealt) == sorted(known) and dealt != known


def test_masks_of_the_control_have_the_size_of_their_new_image(tmp_path):
    """A crack of one pixel is still there on an image of half the size, and a training takes all of them."""
    import numpy as np
    from PIL import Image

    from pipelines.controls.shuffled_masks import at_own_size
    from stages.datasets.masks import load_mask

    crack = np.zeros((40, 60), np.uint8)
    crack[:, 31] = 255
    Image.fromarray(crack).save(tmp_path / "crack.png")
    row = {"split": "train", "mask_paths": ["crack.png"], "width": 30, "height": 20, "mask_file_sizes": [7]}
    test = {"split": "test", "mask_paths": ["crack.png"]}
    fitted, same, untouched = at_own_size([row, row | {"mask_paths": []}, test], tmp_path, tmp_path / "masks")
    mask = load_mask(tmp_path / fitted["mask_paths"][0])
    assert mask.shape == (20, 30) and np.flatnonzero(mask.all(axis=0)).tolist() == [15] and mask.sum() == 20
    assert fitted["mask_file_sizes"] == [] and same["mask_paths"] == [] and untouched is test


@pytest.mark.slow
def test_demo_models_and_controls_need_no_tests():
    code = (
        "import sys, pkgutil, importlib, pipelines\n"
        "names = {m.name for m in pkgutil.walk_packages(pipelines.__path__, 'pipelines.')}\n"
        "learning = {n for n in names if n.startswith('pipelines.demo_models.distilled')}\n"
        "learning.add('pipelines.demo_models.towers_probe')\n"
        "learning.add('pipelines.controls.visualad_starts')\n"
        "for name in names - learning: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules\n"
        "for name in learning: importlib.import_module(name)\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('tests', 'benchmarks')]"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_answer_preferred_whatever_is_shown_gains_nothing_on_half_and_half():
    from pipelines.controls.sage_arms import gained

    label = {f"i{n}": n % 2 for n in range(8)}
    image = {f"{i}/{k}": i for i in label for k in "ab"}
    before = dict.fromkeys(image, (0.0, 5.0))
    after = {q: (1.0, 5.0 + (10 if label[i] else -10)) for q, i in image.items()}
    assert gained(after, before, 0, image, label) == (1.0, 1.0, 1.0)
    assert gained(after, before, 1, image, label) == (0.0, 0.0, 0.0)
    after["i0/a"] = (1.0, 11.0)
    mean, low, high = gained(after, before, 1, image, label)
    assert mean == 1.0 and low == 0.0 < mean < high  # one of four normal images: drawn never, once, or more often
