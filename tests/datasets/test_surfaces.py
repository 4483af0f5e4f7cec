"""Rendered surfaces: what lies where, what is a defect and what is not, and that no simple figure gives it away."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, TRUTH
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import check, folder, good_and_new
from stages.datasets.config import CheckConfig, FolderConfig, GoodAndNewConfig
from stages.datasets.synth.surfaces import FOLDERS, SurfacesConfig, run, surface

QUIET = RunOptions(quiet=True)
DEFECTS = ("scratch", "spot")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("surfaces") / "s"
    run(SurfacesConfig(out=out, good=30, new=20, size=96), QUIET)
    return out


def test_the_folders_hold_what_the_truth_lists(rendered):
    rows = read_table(rendered / "truth.parquet", TRUTH).to_pylist()
    files = {p.relative_to(rendered).as_posix() for p in rendered.rglob("*.jpg")}
    assert {r["image_id"].removeprefix("surfaces-synthetic/") for r in rows} == files and len(files) == 50
    assert [sum(f.startswith(f"{name}/") for f in files) for name in FOLDERS] == [30, 12, 4, 4]
    by_folder = {r["image_id"].split("/", 1)[1][:-8]: (r["split"], r["label"], r["violates"]) for r in rows}
    assert by_folder == {
        "good": ("train", 0, []),
        "new/good": ("test", 0, []),
        "new/scratch": ("test", 1, ["scratch"]),
        "new/spot": ("test", 1, ["spot"]),
    }
    assert "None of them is a photograph" in (rendered / "SYNTHETIC_SURFACES").read_text()


def test_inspect_finds_labels_in_the_folders_and_a_name_that_says_made_up(rendered, tmp_path, capsys):
    config = GoodAndNewConfig(good=rendered / "good", test=rendered / "new", out=tmp_path / "m")
    good_and_new.run(config, RunOptions())
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    truth = {r["image_id"]: r["label"] for r in read_table(rendered / "truth.parquet", TRUTH).to_pylist()}
    assert {r["image_id"]: r["label"] for r in rows} == truth
    assert {r["dataset"] for r in rows} == {"surfaces-synthetic"}
    assert "folders of defects: scratch, spot; of good pictures: good" in capsys.readouterr().err


def test_every_defect_has_a_mask_that_the_folder_loader_pairs(rendered, tmp_path):
    config = FolderConfig(
        root=rendered,
        out=tmp_path / "m",
        train_normal="good",
        test_normal="new/good",
        test_anomalous="new/s*/*",
        masks="masks",
    )
    folder.run(config, QUIET)
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    assert all(len(r["mask_paths"] or ()) == (r["label"] == 1) for r in rows)
    assert check.run(CheckConfig(manifest=tmp_path / "m"), QUIET).differences == ()


@pytest.mark.parametrize("kind", ["scratch", "spot"])
def test_the_mask_is_where_the_picture_differs(kind, monkeypatch):
    """From the same surface without its defect: within the mask, beside it only soft edges and shadows."""
    from stages.datasets.synth import surfaces

    picture, mask, state = surface(f"new/{kind}", 3, 256, 0)
    defect = surfaces.DEFECTS[kind]
    monkeypatch.setitem(surfaces.DEFECTS, kind, lambda *a: (defect(*a)[0], np.zeros((1, 1, 1)), {}))
    without, same, _ = surface(f"new/{kind}", 3, 256, 0)
    assert (mask == same).all() and 0.0005 < mask.mean() < 0.02 and 0.04 <= state["strength"] <= 0.25
    changed = np.abs(picture.astype(int) - without).max(axis=2) > 2
    assert changed[mask].mean() > 0.9 and changed[~mask].mean() < 0.01


def test_pictures_depend_on_seed_folder_and_number_alone(rendered, tmp_path):
    again = SurfacesConfig(out=tmp_path / "a", good=1, new=10, size=96)
    run(again, QUIET)
    for path in sorted((tmp_path / "a").rglob("*.*g")):
        assert path.read_bytes() == (rendered / path.relative_to(tmp_path / "a")).read_bytes(), path
    run(SurfacesConfig(out=tmp_path / "b", good=1, new=3, size=96, seed=1), QUIET)
    assert (tmp_path / "b/good/000.jpg").read_bytes() != (tmp_path / "a/good/000.jpg").read_bytes()
    assert run(again, QUIET).up_to_date


def figures(picture):
    """What a threshold without any model could look at."""
    grey = picture.astype(float).mean(axis=2)
    z = (grey - grey.mean()) / grey.std()
    return grey.mean(), grey.std(), grey.max(), grey.min(), z.max(), z.min(), np.abs(np.diff(grey, axis=1)).max()


@pytest.mark.slow
def test_no_simple_figure_gives_the_defects_away():
    """Light, colour, grain and harmless marks vary more than a defect adds."""
    of = {k: np.array([figures(surface(f"new/{k}", n, 256, 0)[0]) for n in range(24)]) for k in ("good", *DEFECTS)}
    for kind in DEFECTS:
        for column in range(of[kind].shape[1]):
            values = np.concatenate([of["good"][:, column], of[kind][:, column]])
            assert 0.2 < roc_auc_score([0] * 24 + [1] * 24, values) < 0.8, (kind, column)


def test_scratches_lie_across_the_grain(rendered):
    rows = read_table(rendered / "truth.parquet", TRUTH).to_pylist()
    turned = [abs(json.loads(r["state"])["degrees from the grain"]) for r in rows if r["violates"] == ["scratch"]]
    assert all(25 <= t <= 90 for t in turned)
    for n in range(4):
        _, x = np.nonzero(np.asarray(Image.open(rendered / f"masks/scratch/{n:03d}.png")))
        assert np.ptp(x) > 5, "the grain is upright: a line along it would be narrow"


@pytest.mark.parametrize(
    ("wrong", "part"), [({"size": 9}, "--size 9: too small"), ({"good": 0}, "--good 0"), ({"new": 2}, "--new 2")]
)
def test_what_cannot_be_rendered_is_refused(tmp_path, wrong, part):
    with pytest.raises(InputError, match=part):
        run(SurfacesConfig(out=tmp_path / "s", **wrong), QUIET)
    assert not (tmp_path / "s").exists()
