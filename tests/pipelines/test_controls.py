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


@pytest.mark.slow
def test_demo_models_and_controls_need_no_tests():
    code = (
        "import sys, pkgutil, importlib, pipelines\n"
        "for m in pkgutil.walk_packages(pipelines.__path__, 'pipelines.'): importlib.import_module(m.name)\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('tests', 'benchmarks')]\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
