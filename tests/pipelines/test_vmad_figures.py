"""VMAD's Figures 9 and 10 from trained models: what is drawn is what the model computed."""

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.vmad_figures import drawn_masks, embedded, looks, main, separation, spread, tokens
from stages.artifacts.tables import MANIFEST
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.report.grid import published
from tests.pipelines.recorded import MANIFESTS, Run
from tests.vmad.conftest import learned, models, spots, trained  # noqa: F401
from tests.vmad_world import made, paint


def image(n, label=0, category="c"):
    return SimpleNamespace(image_id=f"i{n}", dataset="d", category=category, label=label)


def test_images_are_taken_from_all_categories_by_turns():
    images = [image(n, category="ab"[n > 7]) for n in range(10)]
    assert [i.image_id for i in spread(images, 4)] == ["i0", "i8", "i4", "i9"]
    assert len(spread(images, 100)) == 10 and spread([], 3) == []


def test_separation_by_hand():
    """Two directions: of the class c each image has its like beside it, of d only the other label."""
    z = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], float)
    images = [*(image(n, label) for n, label in enumerate((0, 0, 1, 1))), image(4, 0, "d"), image(5, 1, "d")]
    silhouette, nearest = separation(z, images)
    assert silhouette == pytest.approx(1) and nearest == pytest.approx(4 / 6)
    assert separation(z[:, ::-1], [replace_label(i) for i in images])[0] == pytest.approx(1)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(30, 8))
    assert (embedded(noise) == embedded(noise)).all() and embedded(noise).shape == (30, 2)


def replace_label(i):
    return SimpleNamespace(**vars(i) | {"label": 1 - i.label})


def test_the_scripts_run_what_the_paper_varies(tmp_path):
    """Table IV: every N_b that it prints; Figures 9 and 10 from Table III's models; Table I's VMAD°."""
    for folder in "43r":
        (tmp_path / folder).mkdir()
    four = Run(tmp_path / "4", "vmad_ablations.sh", TABLE="4", **MANIFESTS).done()
    boxes = [c for c in four.commands if "finetune-mllm" in c]
    given = [next((w.partition("=")[2] for w in c if w.startswith("--boxes=")), "32") for c in boxes]
    assert given == list(dict.fromkeys(p["boxes"] for p in published("vmad_table4"))), "32 is the default"
    assert not any("pipelines.vmad_figures" in c for c in four.commands)
    three = Run(tmp_path / "3", "vmad_ablations.sh", **MANIFESTS).done()
    (figures,) = (c for c in three.commands if "pipelines.vmad_figures" in c)
    trainings = [next(c for c in three.commands if "finetune-mllm" in c and w in c) for w in figures[-2:]]
    assert "--no-dssl" not in trainings[0] and "--no-dssl" in trainings[1]
    assert "--projector=mlp" not in trainings[1]
    real = Run(tmp_path / "r", "vmad.sh", RIAD_ROOT="/d/RIAD", VISA_ROOT="/d/VisA", LAST_LAYER="yes").done()
    (last,) = (c for c in real.commands if "ltc-last" in c)
    scored = next(c for c in real.commands if "vmad-last" in c)
    assert scored[scored.index("--checkpoint") + 1] == last[last.index("--out") + 1] != last[last.index("--out") - 1]


@pytest.mark.slow
def test_what_figure_9_shows_is_eq_20_and_eq_21(tmp_path):
    import torch

    from stages.datasets.images import load_rgb
    from tests.tiny import tiny_deep_llava, tiny_sam
    from tests.vmad_world import shaken

    model, _ = made(str(tiny_deep_llava(tmp_path / "l")), str(tiny_sam(tmp_path / "s")))
    shaken(model).eval()
    (picture, *_rest) = paint(tmp_path)
    seen, ltc = [], model.projector.compress
    ltc.integrate.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    found = looks(model, load_rgb(picture.file))
    with torch.no_grad():
        model.base.get_image_features(model.for_clip(model.transform.clip_input(load_rgb(picture.file))[None]))
    assert found.levels == 4 and found.picture.shape == (56, 56, 3)
    assert found.fused.ravel() == pytest.approx(seen[-1][1].norm(dim=-1)[0].numpy(), abs=1e-5)
    for grid in (found.first, found.last):
        assert grid.shape == (4, 4) and grid.reshape(2, 2, 2, 2).sum((1, 3)) == pytest.approx(np.ones((2, 2)), abs=1e-5)
    assert abs(found.first - found.last).max() > 1e-3
    z = tokens(model, paint(tmp_path))
    assert z.shape == (4, 64) and np.linalg.norm(z, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


@pytest.mark.slow
def test_both_figures_are_written(spots, trained, learned, tmp_path, capsys):  # noqa: F811
    from PIL import Image

    rows = [
        r | {"split": "test", "path": str(spots.parent / r["path"]), "mask_paths": masks}
        for r in pq.read_table(spots).to_pylist()
        for masks in [[str(spots.parent / m) for m in r["mask_paths"]]]
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    main(tmp_path / "m.parquet", tmp_path / "f", trained, learned)
    for name in ("figure9.png", "figure10.png"):
        assert min(Image.open(tmp_path / "f" / name).size) > 300
    said = capsys.readouterr().out
    assert "with DSSL: silhouette" in said and "without DSSL: silhouette" in said
    lines = list(csv.DictReader((tmp_path / "f/tokens.csv").read_text().splitlines()))
    assert len(lines) == 2 * 12 and {r["model"] for r in lines} == {"with DSSL", "without DSSL"}
    main(tmp_path / "m.parquet", tmp_path / "one", trained)
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["figure9.png"]
    with pytest.raises(InputError, match="m.parquet: no normal, or no anomalous test images"):
        main(spots, tmp_path / "g", trained)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named_and_another_one_shown(spots, learned, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr("pipelines.vmad_figures.SHOWN", 2)
    shutil.copytree(spots.parent, tmp_path / "spots")
    folder, rows = tmp_path / "spots", pq.read_table(spots).to_pylist()
    for r in rows:
        masks = [str(folder / m) for m in r["mask_paths"]]
        r |= {"split": "test", "path": str(folder / r["path"]), "mask_paths": masks}
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    images = [i for i in read_manifest(folder / "m.parquet").images if i.label == 1]
    first, second = spread(images, 2)
    for broken in (first.file, second.masks[0], folder / "0.png"):
        broken.write_bytes(broken.read_bytes()[:-60])
    drawn = []
    monkeypatch.setattr(
        "pipelines.vmad_figures.drawn_masks", lambda *given: drawn.append(given[2]) or drawn_masks(*given)
    )
    main(folder / "m.parquet", tmp_path / "f", learned, learned)
    said = capsys.readouterr().out
    assert "left out, as they cannot be read: 3 images" in said
    for name, file in ((first.image_id, first.file), (second.image_id, second.masks[0]), ("i00", folder / "0.png")):
        assert f"  {name}: {file}: cannot be decoded" in said
    assert all(len(shown) == 2 and not {first, second} & set(shown) for shown in drawn) and len(drawn) == 2
    lines = list(csv.DictReader((tmp_path / "f/tokens.csv").read_text().splitlines()))
    assert {r["image_id"] for r in lines} == {r["image_id"] for r in rows} - {first.image_id, "i00"}
    for row in rows:
        (folder / row["path"]).write_bytes(b"")
    with pytest.raises(InputError, match="test images with masks that can be read"):
        main(folder / "m.parquet", tmp_path / "g", learned)
