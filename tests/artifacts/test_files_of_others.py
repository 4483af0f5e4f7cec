"""Files that adcli did not write, where it is to write: refused in one line, before anything else is written."""

from dataclasses import replace

import numpy as np
import pytest

from stages.artifacts.checks import require_ours
from stages.artifacts.files import write_alone, write_temporary
from stages.artifacts.outputs import INDEX, MARK, claim, remove_unfinished
from stages.base.errors import InputError
from stages.datasets.augment import AugmentConfig
from stages.datasets.augment import run as augment
from stages.datasets.synth.vidad import SynthConfig
from stages.datasets.synth.vidad import run as synth
from stages.evaluate.images import run
from tests.hostile import QUIET, images, listing

LONG = "x" * 245


@pytest.mark.slow
@pytest.mark.parametrize(
    "output, name",
    [("tables", "tasks.csv"), ("tables", "curves.png"), ("heatmaps", "m/x.png"), ("heatmaps", "m")],
)
def test_evaluate_replaces_no_file_of_others(tmp_path, output, name):
    config = images(tmp_path / "a", ["x", "y"])
    mine = getattr(config, output) / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=rf"{mine}: a file.*; give another folder than .*, or remove it"):
        run(config, QUIET)
    assert listing(tmp_path) == before
    mine.unlink()
    run(config, QUIET)
    run(config, replace(QUIET, overwrite=True))  # its own files it replaces
    assert mine.exists() and (config.tables / INDEX).exists()


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_thresholds_that_are_refused_leave_the_metrics_as_they_are(tmp_path, overwrite):
    config = images(tmp_path / "a", ["x", "y"])
    run(config, QUIET)
    if overwrite:  # not even then a folder of others
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes").write_text("mine")
        config = replace(config, thresholds=tmp_path / "mine", resamples=7)
        said = "holds other files"
    else:
        config, said = replace(config, out=tmp_path / "new", resamples=7), "made with other settings"
    before = listing(tmp_path)
    with pytest.raises(InputError, match=said):
        run(config, replace(QUIET, overwrite=overwrite))
    assert listing(tmp_path) == before


@pytest.mark.slow
def test_names_of_any_length_can_be_written(tmp_path):
    config = images(tmp_path / "a", ["x", "y"])
    config = replace(config, report=tmp_path / f"{LONG}.html", ranking=tmp_path / f"{LONG}.csv", tables=tmp_path / LONG)
    run(config, QUIET)
    assert config.report.is_file() and config.ranking.is_file()
    for left in (f"{LONG}.html", "r.html"):
        temporary = write_temporary(tmp_path / left, lambda f: f.write(b"half"))
        remove_unfinished(tmp_path / left)
        assert not temporary.exists()
        temporary = write_temporary(tmp_path / left, lambda f: f.write(b"half"))
        write_alone(tmp_path / left, lambda f: f.write(b"whole"))
        assert not temporary.exists() and (tmp_path / left).read_bytes() == b"whole"


def test_augment_replaces_no_picture_of_others(tmp_path):
    at = images(tmp_path / "a", ["x"])
    config = AugmentConfig(manifest=at.manifest, kind="pad20", root=at.root, out=tmp_path / "m", images=tmp_path / "i")
    mine = tmp_path / "i" / "images" / "d" / "pad20" / "x.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=f"{mine}: a file that adcli did not write is there"):
        augment(config, QUIET)
    assert listing(tmp_path) == before
    mine.unlink()
    assert augment(config, QUIET).rows == 1
    assert augment(replace(config, out=tmp_path / "m2"), QUIET).rows == 1  # of its own making


def test_rendered_scenes_take_no_photographs_place(tmp_path):
    """`data synth vidad` lays its pictures out as VID-AD does."""
    mine = tmp_path / "fruits" / "white_bg" / "train" / "normal" / "000.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("a photograph")
    with pytest.raises(InputError, match=f"{mine}: a file that adcli did not write is there"):
        synth(SynthConfig(out=tmp_path, scenarios="fruits", conditions="white_bg", size=64, workers=1), QUIET)
    assert mine.read_text() == "a photograph" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_marked_is_written_again(tmp_path):
    claim(tmp_path, ["a"])
    (tmp_path / "a").write_text("ours")
    claim(tmp_path, ["a"])
    assert {p.name for p in tmp_path.iterdir()} == {"a", MARK}


def test_a_mask_is_put_in_the_place_of_a_mask_alone(tmp_path, save_image):
    from stages.vmad.ask import write_mask

    require_ours("mask", tmp_path / "new.png")
    write_mask(tmp_path / "new.png", np.zeros((4, 4)))
    require_ours("mask", tmp_path / "new.png")
    with pytest.raises(InputError, match=r"--mask .*a.png: a file that adcli did not write is there"):
        require_ours("mask", save_image(tmp_path / "a.png"))
