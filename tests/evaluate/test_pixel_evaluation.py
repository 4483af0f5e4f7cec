"""From maps and masks on disk to metrics, thresholds, pictures; MVTec LOCO and its saturated PRO."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import from_row, map_keys, read_maps, to_row
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, MAPS, METRICS, SCORES, THRESHOLDS
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.datasets import loco, mvtec
from stages.datasets.manifest import read_manifest
from stages.datasets.masks import at_size
from stages.evaluate.images import EvaluateConfig, run
from stages.results.metrics.pixel import metrics, picture
from stages.results.pixels import fitted
from tests.pages import page_data

QUIET = RunOptions(quiet=True)


def test_maps_round_trip(tmp_path):
    anomaly_map = np.random.default_rng(0).normal(size=(5, 7))
    rows = [to_row((f"i{n}", "m"), anomaly_map * n) for n in range(40)]
    wide = rows[0] | {"image_id": "wide", "map": anomaly_map.astype("<f8").tobytes()}
    failed = {"image_id": "failed", "method": "m", "error": "out of memory"}
    pq.write_table(pa.Table.from_pylist([*rows, wide, failed], schema=MAPS.schema), tmp_path / "maps.parquet")
    keys = map_keys(tmp_path / "maps.parquet")
    assert len(keys) == 42 and keys["failed", "m"] == "out of memory" and keys["i3", "m"] is None
    found = dict(read_maps(tmp_path / "maps.parquet", {("i7", "m"), ("wide", "m"), ("failed", "m"), ("i7", "other")}))
    assert set(found) == {("i7", "m"), ("wide", "m")}
    assert found["i7", "m"].dtype == np.float16 and (found["i7", "m"] == (anomaly_map * 7).astype(np.float16)).all()
    assert (found["wide", "m"] == anomaly_map).all()
    with pytest.raises(InputError, match="wide: its map has 280 bytes for 9 x 5 pixels"):
        from_row(wide | {"width": 9})
    for bad in (1e6, np.nan):
        with pytest.raises(ValueError, match="not finite in float16"):
            to_row(("i", "m"), np.array([[bad]]))
    pq.write_table(pa.Table.from_pylist([rows[0], rows[0]], schema=MAPS.schema), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="two maps of i0 by m"):
        map_keys(tmp_path / "twice.parquet")


@pytest.mark.slow
def test_resizing_is_torchs_bilinear_without_aligned_corners():
    import torch

    small = np.random.default_rng(1).normal(size=(9, 7)).astype(np.float16)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(small.astype(np.float32))[None, None], (40, 33), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    assert fitted(small, (40, 33)) == pytest.approx(theirs, abs=1e-5)
    assert fitted(small, (9, 7)) is small


def test_masks_at_another_size_are_bilinear_and_above_one_half():
    """Halved: a column's weights in the first output column are 3/7, 3/7 and 1/7."""
    columns = np.arange(4)[None].repeat(4, 0)
    assert at_size(columns < 2, 2).tolist() == [[True, False]] * 2
    assert not at_size(columns == 1, 2).any()  # nearest neighbour finds it
    assert at_size(columns < 4, 2).all() and at_size(columns < 1, 4).tolist() == (columns < 1).tolist()


def metric(config, category, name):
    rows = read_table(config.out, METRICS).to_pylist()
    return next(r for r in rows if (r["category"], r["metric"]) == (category, name))


@pytest.mark.slow
def test_metrics_thresholds_and_pictures_of_maps_on_disk(two_categories):
    config, kept = two_categories
    run(replace(config, pro_200=True), QUIET)
    pictures = [picture(fitted(s, m.shape), m) for k, (s, m) in kept.items() if k[0] == "a"]
    expected, _c = metrics(pictures, 0.3, 0, 0, approximate=True)
    for name, value in expected.items():
        row = metric(config, "a", name)
        assert row["value"] == pytest.approx(value.value, abs=1e-12) and row["level"] == "pixel"
        assert (row["n"], row["n_positive"]) == (7, 4)
        both = (row["value"] + metric(config, "b", name)["value"]) / 2
        assert metric(config, "mean", name)["value"] == pytest.approx(both)
    row = metric(config, "a", "pro@0.3")
    assert row["ci_low"] < row["value"] < row["ci_high"]
    found = {(t["category"], t["level"], t["name"]): t for t in read_table(config.thresholds, THRESHOLDS).to_pylist()}
    best = found["a", "pixel", "f1-max"]
    assert best["n"] == 7 and best["source"] == "masks of test images"
    scores, mask = (
        np.concatenate([x.ravel() for x in v])
        for v in zip(*((fitted(s, m.shape), m) for k, (s, m) in kept.items() if k[0] == "a"), strict=True)
    )
    called = scores >= best["threshold"]
    assert 2 * (called & mask).sum() / (called.sum() + mask.sum()) == pytest.approx(expected["pixel_f1_max"].value)
    image_level = found["a", "image", "f1-max"]["threshold"]
    assert image_level in [float(s.max()) for s, _ in kept.values()]
    import PIL.Image

    pages = sorted((config.heatmaps / "m").glob("*.png"))
    assert len(pages) == 14 and PIL.Image.open(pages[0]).size == (4 * 60, 40)
    page = config.report.read_text()
    shown = page_data(config.report)
    assert {t["line"] for m in shown.data["methods"] for t in m["tasks"]} == {None}, "no threshold tells them apart"
    assert [bool(r["outline"]) for r in shown.rows()] == [r["label"] == 1 for r in shown.rows()], "masks are outlined"
    assert "Anomaly maps" in page and "worst: F1" in page and "ROC and PRO curves" in page and "pro_200" in page
    assert (config.tables / "pixels.csv").exists() and (config.tables / "curves.png").exists()


@pytest.mark.slow
def test_zero_shot_table_beside_the_published_rows(two_categories):
    config, _ = two_categories
    table = pq.read_table(config.manifest)
    column = table.schema.get_field_index("dataset")
    pq.write_table(table.set_column(column, "dataset", pa.array(["btad"] * len(table))), config.manifest)
    run(replace(config, resamples=0), QUIET)
    import csv

    _head, *lines = csv.reader((config.tables / "zero-shot.csv").read_text().splitlines())
    assert lines[0][:2] == ["btad", "m, ours"] and len(lines) == 8
    assert lines[0][2] == f"{100 * metric(config, 'mean', 'auroc')['value']:.1f}"
    assert lines[0][8] == f"{100 * metric(config, 'mean', 'pro@0.3')['value']:.1f}"
    assert lines[6] == ["btad", "VisualAD (CLIP) (published)", "94.9", "93.9", "97.0", "91.1", "49.8", "43.1", "80.4"]


@pytest.mark.slow
def test_workers_give_the_same(two_categories, tmp_path):
    config, _ = two_categories
    one, two = replace(config, out=tmp_path / "one"), replace(config, out=tmp_path / "two", workers=2)
    for c in (one, two):
        run(replace(c, report=None, tables=None, thresholds=None, heatmaps=None), QUIET)
    assert read_table(one.out, METRICS).equals(read_table(two.out, METRICS))


@pytest.mark.slow
def test_a_fixed_size_and_another_limit(two_categories):
    config, _kept = two_categories
    run(replace(config, pixel_size=20, pro_limit=0.05, resamples=0), QUIET)
    assert 0 < metric(config, "a", "pro@0.05")["value"] < 1
    for wrong, said in (({"pro_limit": 0.0}, "--pro-limit 0.0"), ({"pixel_size": -1}, "--pixel-size -1")):
        with pytest.raises(InputError, match=said):
            run(replace(config, **wrong), QUIET)


@pytest.mark.slow
def test_maps_that_lack_something(two_categories):
    config, kept = two_categories
    rows = pq.read_table(config.maps).to_pylist()
    broken = kept["b4"][0].copy()
    broken[3, 3] = np.nan
    by_id = {r["image_id"]: r for r in rows}
    by_id["b4"]["map"] = broken.tobytes()
    by_id["a6"] |= {"map": None, "error": "out of memory"}
    del by_id["a0"]
    pq.write_table(pa.Table.from_pylist(list(by_id.values()), schema=MAPS.schema), config.maps)
    (config.root / "a5_mask.png").write_text("no image")
    run(config, QUIET)
    assert metric(config, "b", "pixel_auroc")["reason"] == "b4: NaN or infinity in the anomaly map"
    assert metric(config, "b", "pixel_auroc")["value"] is None
    row = metric(config, "a", "pixel_auroc")
    assert (row["n"], row["n_positive"]) == (4, 2) and 0.5 < row["value"] <= 1
    line = next(x for x in (config.tables / "pixels.csv").read_text().splitlines() if x.startswith("d,m,all,a"))
    assert line.endswith(",4,3"), "a0 without a map, a5 without a mask, a6 failed"


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["by the manifest", "by the image's header"])
@pytest.mark.parametrize("size", [0, 20])
def test_a_mask_of_another_size_than_its_image_is_left_out_and_not_resized(two_categories, save_image, known, size):
    config, _ = two_categories
    if not known:
        rows = pq.read_table(config.manifest).to_pylist()
        unknown = [r | {"width": None, "height": None} for r in rows]
        pq.write_table(pa.Table.from_pylist(unknown, schema=MANIFEST.schema), config.manifest)
    save_image(config.root / "a5_mask.png", np.eye(20, 30, dtype=np.uint8) * 255)  # half of each side
    run(replace(config, pixel_size=size, resamples=0), QUIET)
    row, other = metric(config, "a", "pixel_auroc"), metric(config, "b", "pixel_auroc")
    assert row["n"] == other["n"] - 1 and row["n_positive"] == other["n_positive"] - 1
    assert "a5: " in row["reason"] and "a5_mask.png: 30 x 20 px, its image 60 x 40" in row["reason"]


def test_without_any_mask_one_line_says_so_and_no_table_is_shown(two_categories, capsys):
    """As with own pictures in folders named after their defects; the reasons stand in the metrics."""
    config, _kept = two_categories
    rows = pq.read_table(config.manifest)
    column = rows.schema.get_field_index("mask_paths")
    empty = pa.array([[]] * len(rows), rows.schema.field(column).type)
    pq.write_table(rows.set_column(column, rows.schema.field(column), empty), config.manifest)
    run(config, RunOptions())
    said = capsys.readouterr()
    assert said.err.count("without a mask") == 1, said.err
    assert "no pixel metrics: 8 anomalous images without a mask, as a" in said.err
    assert "AUROC per task" in said.out and "Pixel metrics" not in said.out
    assert "Pixel metrics" not in config.report.read_text() and not (config.tables / "pixels.csv").exists()
    assert "no anomalous pixels" in metric(config, "a", "pixel_auroc")["reason"]


def test_a_one_class_category_has_reasons(two_categories):
    config, _kept = two_categories
    table = pq.read_table(config.maps)
    normal = [i[0] == "a" and int(i[1]) < 3 for i in table["image_id"].to_pylist()]
    pq.write_table(table.filter(pa.array(normal)), config.maps)
    run(config, QUIET)
    assert metric(config, "a", "pro@0.3")["reason"] == (
        "no anomalous pixels; 4 of 7 images left out: a3: no map, a4: no map, a5: no map and 1 more"
    )


# -- MVTec LOCO -------------------------------------------------------------------------------------------


@pytest.fixture
def pushpins(tmp_path, save_image):
    """One category: 2 good test images, 2 logical (one with two regions), 1 structural."""
    base = tmp_path / "loco" / "pushpins"
    for n, name in enumerate(
        (
            "train/good/000",
            "validation/good/000",
            "test/good/000",
            "test/good/001",
            "test/logical_anomalies/000",
            "test/logical_anomalies/001",
            "test/structural_anomalies/000",
        )
    ):
        save_image(base / f"{name}.png", n)
    for place, value, size in (
        ("logical_anomalies/000/000", 255, 6),
        ("logical_anomalies/000/001", 254, 4),
        ("logical_anomalies/001/000", 255, 8),
        ("structural_anomalies/000/000", 250, 5),
    ):
        mask = np.zeros((40, 60), np.uint8)
        at = 2 if place.endswith("000/000") else 20
        mask[at : at + size, at : at + size] = value
        save_image(base / "ground_truth" / f"{place}.png", mask)
    kinds = [("missing", 255, 10, False), ("additional", 254, 0.5, True), ("broken", 250, 1.0, True)]
    (base / "defects_config.json").write_text(
        json.dumps(
            [
                {"defect_name": n, "pixel_value": v, "saturation_threshold": s, "relative_saturation": r}
                for n, v, s, r in kinds
            ]
        )
    )
    return tmp_path / "loco"


def test_loco_round_trip(pushpins, tmp_path):
    loco.run(mvtec.MvtecConfig(root=pushpins, out=tmp_path / "m"), QUIET)
    images = {i.image_id: i for i in read_manifest(tmp_path / "m").images}
    assert len(images) == 7 and not any(i.error for i in images.values())
    assert {i.split for i in images.values()} == {"train", "val", "test"}
    two = images["mvtec-loco/pushpins/test/logical_anomalies/000.png"]
    assert (two.defect, len(two.masks)) == ("logical_anomalies", 2)
    mask, saturation = loco.saturation_of(two.masks[0])
    assert mask.sum() == 36 and saturation == 10
    assert loco.saturation_of(two.masks[1])[1] == 8, "half of 16 pixels"
    (pushpins / "pushpins/ground_truth/logical_anomalies/001/000.png").unlink()
    loco.run(mvtec.MvtecConfig(root=pushpins, out=tmp_path / "m2"), QUIET)
    lost = [i for i in read_manifest(tmp_path / "m2").images if any(not m.is_file() for m in i.masks)]
    assert [i.file.stem for i in lost] == ["001"] and not lost[0].error


def test_loco_values_by_hand(pushpins, tmp_path):
    """A map that is 2 on ten pixels of the first region, 1 on one row of normal pixels, 0 elsewhere."""
    loco.run(mvtec.MvtecConfig(root=pushpins, out=tmp_path / "m"), QUIET)
    scores, maps = [], []
    for image in read_manifest(tmp_path / "m").images:
        if image.split == "test":
            anomaly_map = np.zeros((40, 60))
            anomaly_map[39] = 1.0
            if image.image_id.endswith("logical_anomalies/000.png"):
                anomaly_map[2:7, 2:4] = 2.0
            scores.append({"image_id": image.image_id, "method": "m", "score": anomaly_map.max()})
            maps.append(to_row((image.image_id, "m"), anomaly_map))
    pq.write_table(pa.Table.from_pylist(scores, schema=SCORES.schema), tmp_path / "s.parquet")
    pq.write_table(pa.Table.from_pylist(maps, schema=MAPS.schema), tmp_path / "maps.parquet")
    config = EvaluateConfig(
        scores=tmp_path / "s.parquet",
        manifest=tmp_path / "m",
        maps=tmp_path / "maps.parquet",
        out=tmp_path / "metrics",
        resamples=0,
    )
    run(config, QUIET)
    # logical: regions saturate at 10, 8 and 10 pixels; above 0 the first is found (1/3); normal pixels at 1: 4 rows of
    # 60 of 4 * 2400 - 36 - 16 - 64; the rest is tied at 0, where all is found
    normal = 4 * 2400 - 36 - 16 - 64
    at_one = 240 / normal
    end = 1 / 3 + (1 - 1 / 3) * (0.05 - at_one) / (1 - at_one)
    logical = (at_one / 3 + (0.05 - at_one) * (1 / 3 + end) / 2) / 0.05
    assert metric(config, "pushpins", "spro@0.05/logical_anomalies")["value"] == pytest.approx(logical)
    structural = metric(config, "pushpins", "spro@0.05/structural_anomalies")
    assert structural["n"] == 3 and metric(config, "pushpins", "spro@0.05")["value"] == pytest.approx(
        (logical + structural["value"]) / 2
    )


def test_what_loco_masks_lack(pushpins):
    mask = pushpins / "pushpins/ground_truth/logical_anomalies/000/000.png"
    config = pushpins / "pushpins/defects_config.json"
    kinds = json.loads(config.read_text())
    config.write_text(json.dumps(kinds[1:]))
    with pytest.raises(ImageError, match="its value 255 is not in defects_config.json"):
        loco.saturation_of(mask)
    loco._config.cache_clear()
    config.unlink()
    with pytest.raises(InputError, match="defects_config.json: not a list of defects"):
        loco.saturation_of(mask)
