"""An image that breaks after it was indexed ends no training: it is left out before the first step, counted and named;
where nothing is left the training is refused before anything is written."""

import shutil
from dataclasses import replace

import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ENCODERS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.datasets.trainable import unreadable, usable
from tests.spots import make_spots

FEW = {"tasks": "segmentation", "questions": None, "epochs": 0.4}


def cut(path):
    """As a copy that was interrupted: the header is whole."""
    path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture
def spots(tmp_path):
    def more(n):
        return {"category": f"grey_{n // 6}", "split": "train", "defect": "bright_spot" if n % 2 else None}

    (tmp_path / "spots").mkdir()
    return make_spots(tmp_path / "spots", 12, (48, 64), 20, 100, more)


def test_every_file_is_decoded_once(spots):
    images = read_manifest(spots, spots.parent).images
    assert usable(images, spots, masks=True) == (images, [])
    cut(spots.parent / "0.png")
    (spots.parent / "2.png").write_bytes(b"no image")
    (spots.parent / "3_mask.png").write_bytes(b"")
    (spots.parent / "4.png").unlink()
    lacks = unreadable(images, masks=True)
    assert list(lacks) == ["i00", "i02", "i03", "i04"] and list(unreadable(images)) == ["i00", "i02", "i04"]
    for name, why in (("0.png", "truncated"), ("2.png", "no known image format"), ("4.png", "no such image")):
        assert any(name in line and why in line for line in lacks.values())
    good, said = usable(images, spots, masks=True)
    assert len(good) == 8 and said[0].startswith("i00: ") and "0.png" in said[0]
    with pytest.raises(InputError, match="i01 has no label"):
        usable([images[0], replace(images[1], label=None)], spots, masks=False)


def trained(run, config, n, named, capfd):
    """The training's record says that it was on n samples, and names what it left out; so does the terminal."""
    assert run(config, RunOptions()).errors == 0
    assert read_table(config.out, ENCODERS).to_pylist()[0]["n"] == n
    left_out = str(read_provenance(config.out)[0]["notes"]["left out"])
    said = capfd.readouterr().err
    assert all(name in left_out and name in said for name in named), (left_out, said)
    assert run(config, RunOptions(quiet=True)).up_to_date


def refused(run, config, said):
    with pytest.raises(InputError, match=said):
        run(config, RunOptions(quiet=True))
    assert not config.out.exists(), "before anything is written"


@pytest.mark.slow
def test_visualad(spots, tmp_path, capfd):
    from stages.visualad.config import TrainVisualadConfig
    from stages.visualad.train import run
    from tests.tiny import tiny_clip_vision

    cut(spots.parent / "0.png")
    (spots.parent / "3.png").unlink()
    config = TrainVisualadConfig(
        manifest=spots,
        root=spots.parent,
        backbone=str(tiny_clip_vision(tmp_path / "clip")),
        out=tmp_path / "out",
        splits="train",
        size=56,
        layers="2,4",
        batch_size=2,
        epochs=1,
        device="cpu",
        precision="fp32",
    )
    trained(run, config, 10, ("i00: ", "0.png", "i03: ", "3.png"), capfd)
    for n in range(0, 12, 2):
        cut(spots.parent / f"{n}.png")
    refused(run, replace(config, out=tmp_path / "none"), "5 usable images, not normal and anomalous ones .i00: .*0.png")


@pytest.mark.slow
def test_vmad(spots, llava, sam, tmp_path, capfd):
    from stages.vmad.train import run
    from tests.vmad_stages_world import config

    cut(spots.parent / "0.png")
    made = config(spots, {"llava": llava, "sam": sam}, tmp_path / "out", **FEW)
    trained(run, made, 11, ("i00: ", "0.png"), capfd)
    for n in range(12):
        (spots.parent / f"{n}.png").write_bytes(b"")
    refused(run, replace(made, out=tmp_path / "none"), "no usable image .*i00: .*the file is empty")


@pytest.mark.slow
def test_vmad_without_masks(spots, llava, sam, tmp_path, capfd):
    """--tasks vqa needs no masks; those that DSSL's separation is measured on may be broken, too."""
    from stages.artifacts.tables import QUESTIONS
    from stages.vmad.train import run
    from tests.sage_world import write
    from tests.vmad_stages_world import config

    asked = [
        {
            "question_id": f"q{n}",
            "image_id": f"i{n:02d}",
            "level": "other",
            "question": "Why?",
            "choices": [],
            "answer": a,
        }
        for n, a in ((1, "It is bright."), (3, "It has a spot."), (4, "It is grey."))
    ]
    questions = write(tmp_path / "q.parquet", asked, QUESTIONS)
    for n in range(1, 12, 2):
        cut(spots.parent / f"{n}_mask.png")
    cut(spots.parent / "3.png")
    more = {"tasks": "vqa", "questions": questions, "epochs": 1, "batch_size": 2}
    made = config(spots, {"llava": llava, "sam": sam}, tmp_path / "out", **more)
    trained(run, made, 2, ("i03: ", "3.png"), capfd)


@pytest.fixture
def broken_tiles(tiles, tmp_path):
    """The image of q003 is cut, that of q005 gone."""
    folder = tmp_path / "tiles"
    shutil.copytree(tiles.manifest.parent, folder)
    cut(folder / "t003.png")
    (folder / "t005.png").unlink()
    return replace(tiles, **{n: folder / f"{n}.parquet" for n in ("manifest", "questions", "facts", "judgements")})


@pytest.mark.slow
def test_sage(broken_tiles, internvl, sfe_models, tmp_path, capfd):
    from stages.sage.edpo import run as edpo
    from stages.sage.sfe import run as sfe
    from tests.sage_world import edpo_config, sfe_config

    made = sfe_config(broken_tiles, internvl, tmp_path / "sfe", epochs=1)
    trained(sfe, made, 10, ("q005", "t005.png"), capfd)
    left_out = read_provenance(made.out)[0]["notes"]["left out"]
    assert "t003.png" in left_out["q003"] and "t005.png: no such image" in left_out["q005"]
    aligned = edpo_config(broken_tiles, sfe_models[4], tmp_path / "edpo")
    trained(edpo, aligned, 2 * 10, ("q005", "t005.png"), capfd)
    cut(broken_tiles.manifest.parent / "whole.png")  # the reference of them all
    refused(sfe, replace(made, out=tmp_path / "none"), "no question can be learned from; the first: .*t005.png")
    refused(edpo, replace(aligned, out=tmp_path / "none"), "no question can be learned from")
