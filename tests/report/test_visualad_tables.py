"""VisualAD's tables from metrics and records made by hand; the published figures against each other."""

import pytest

from stages.datasets import known
from stages.report.grid import published
from stages.report.visualad import IMAGE, PIXEL, made_of, table1
from stages.report.visualad_ablations import alike, all_tables, figure4

MODEL = {
    "backbone": "openai/clip-vit-large-patch14-336",
    "variant": "code",
    "layers": [6, 12, 18, 24],
    "anchors": 4,
    "position": "1d",
    "size": 518,
    "as_released": False,
    "without": [],
    "trained_on": ["mvtec-ad"],
    "epochs": 2,
    "seed": 0,
    "precision": "fp32",
    "scored": "fp32",
    "sigma": 4.0,
}


def record(method, *datasets, **more):
    said = MODEL | more | {"datasets": list(datasets)}
    return {"parameters": {"method": method}, "notes": {"visualad": said}}


def rows_of(dataset, method, *values, more=()):
    """METRICS of a data set of one category: IMAGE and PIXEL in this order."""
    names = (*IMAGE, *PIXEL[:3], "pro@0.3", *more)
    return [
        {"dataset": dataset, "method": method, "category": "c", "condition": None, "metric": m, "value": v}
        for m, v in zip(names, values, strict=True)
    ]


def tables(rows, records):
    return {g.name: [list(map(str, line)) for line in g.rows] for g in all_tables(rows, made_of(records))}


def test_rows_of_table_1_name_backbone_and_training_set_and_pro_200_where_it_was_asked_for():
    values = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
    rows = rows_of("mvtec-ad", "visualad", *values) + rows_of("visa", "visualad", *values)
    rows += rows_of("visa", "visualad-as-released", *values) + rows_of("visa", "visualad-bf16", *values)
    records = [
        record("visualad", "mvtec-ad", trained_on=["visa"]),
        record("visualad", "visa"),
        record("visualad-as-released", "visa", as_released=True),
        record("visualad-bf16", "visa", scored="bf16"),
    ]
    grid = table1(rows, (), made_of(records))
    clip = "clip-vit-large-patch14-336 trained on"
    ours = [r[:2] for r in grid.rows if "published" not in r[1]]
    assert ours == [
        ("mvtec-ad", f"visualad, ours: {clip} visa, fp32"),
        ("visa", f"visualad, ours: {clip} mvtec-ad, fp32"),
        ("visa", f"visualad-as-released, ours: {clip} mvtec-ad, fp32, as released"),
        ("visa", f"visualad-bf16, ours: {clip} mvtec-ad, trained in fp32, scored in bf16"),
    ]
    assert grid.columns[-1] == "PRO" and grid.rows[0][-1] == "30.0" and len(grid.rows) == 4 + 2 * 7
    with_200 = table1(rows_of("visa", "visualad", *values, 0.35, more=("pro_200",)), (), {})
    assert with_200.columns[-1] == "PRO, 200 steps" and with_200.rows[0][-2:] == ("30.0", "35.0")
    assert with_200.rows[0][1] == "visualad, ours" and with_200.rows[1][-2:] == ("51.1", "-")


def test_a_category_that_is_not_there_is_said_below_the_means():
    def of(dataset, *categories):
        values = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
        return [r | {"category": c} for c in (*categories, "mean") for r in rows_of(dataset, "visualad", *values)]

    whole = [r["category"] for r in known.rows() if r["dataset"] == "visa"]
    notes = [table1(of("visa", *cs) + of("btad", "01"), (), {}).note for cs in (whole[1:], whole)]
    said = " Ours of visa: 11 of 12 categories, published: all."
    assert notes[0].endswith(said) and notes[0].removesuffix(said) == notes[1]
    found = of("visa", "pcb1", "pcb2") + [r | {"method": "one"} for r in of("visa", "pcb1", "pcb2")]
    two = all_tables(found, made_of([record("visualad", "visa"), record("one", "visa", anchors=1)]))
    assert next(g for g in two if g.name == "visualad-table3").note.endswith(said.replace("11", "2"))


def test_a_name_of_two_kinds_of_models_on_one_data_set_is_none():
    records = [record("v", "visa", "btad"), record("v", "visa", seed=1), record("w", "btad", seed=1)]
    assert made_of(records).keys() == {("btad", "v"), ("btad", "w")}


def test_ablations_stand_above_the_published_row_of_the_same_kind():
    names = ("full", "one", "sca-less", "both", "sines", "first", "elsewhere")
    rows = [r for n, name in enumerate(names) for r in rows_of("visa", name, *((n + 1) / 10 for _ in range(7)))]
    records = [
        record("full", "visa"),
        record("one", "visa", anchors=1),
        record("sca-less", "visa", without=["sca"]),
        record("both", "visa", without=["saf", "sca"]),
        record("sines", "visa", position="1d-sin"),
        record("first", "visa", layers=[6]),
        record("elsewhere", "visa", anchors=1, epochs=1),  # has no counterpart
    ]
    found = tables(rows, records)
    published_full = ["visa", "VisualAD (published)", "84.7", "87.6", "95.8", "28.4"]
    assert found["visualad-table2"][:4] == [
        ["no", "yes", "yes", "yes", "yes", "visa", "sca-less, ours", *["30.0"] * 4],
        ["no", "yes", "yes", "yes", "yes", "visa", "VisualAD (published)", "82.3", "85.4", "95.3", "27.4"],
        ["yes", "no", "yes", "yes", "yes", "visa", "VisualAD (published)", "50.5", "58.9", "87.9", "3.5"],
        ["no", "no", "yes", "yes", "yes", "visa", "both, ours", *["40.0"] * 4],
    ]
    assert found["visualad-table2"][-2:] == [
        [*["yes"] * 5, "visa", "full, ours", *["10.0"] * 4],
        [*["yes"] * 5, *published_full],
    ]
    assert [r[:3] for r in found["visualad-table3"]] == [
        ["1", "visa", "one, ours"],
        ["1", "visa", "VisualAD (published)"],
        ["2", "visa", "VisualAD (published)"],
        ["4", "visa", "full, ours"],
        *([n, "visa", "VisualAD (published)"] for n in ("4", "8", "16", "32")),
    ]
    assert found["visualad-table4"][0][:3] == ["{6}", "visa", "first, ours"] and len(found["visualad-table4"]) == 9
    assert ["Fixed 1D Sinusoidal", "visa", "sines, ours"] in [r[:3] for r in found["visualad-table5"]]
    assert not found["visualad-figure4"] and figure4(rows, made_of(records)) is None


def test_no_ablation_without_a_counterpart():
    made = made_of([record("a", "visa"), record("b", "visa", anchors=1, layers=[6]), record("a", "btad", anchors=2)])
    assert not any(alike(made, n) for n in ("anchors", "layers", "position", "without"))
    assert all(not g.rows for g in all_tables([], made))


def test_figure_4_has_a_line_per_backbone():
    rows = rows_of("visa", "a", *[0.5] * 7) + rows_of("visa", "b", *[0.6] * 7)
    records = [
        record("a", "visa"),
        record("b", "visa", backbone="/m/vit-b", layers=[3, 12], size=512),
        record("c", "visa", layers=[6]),
    ]
    assert [r[1].split(" trained")[0] for r in tables(rows, records)["visualad-figure4"]] == [
        "a, ours: clip-vit-large-patch14-336",
        "b, ours: vit-b",
    ]
    assert figure4(rows, made_of(records))[:4] == b"\x89PNG"


def test_published_tables_agree_where_they_show_the_same_model():
    def at(number, **wanted):
        (row,) = (p for p in published(f"visualad_table{number}") if all(p[n] == v for n, v in wanted.items()))
        return {n: float(v) for n, v in row.items() if n in (*IMAGE, *PIXEL)}

    whole = at(1, dataset="visa", method="VisualAD (CLIP)")
    for number, wanted in ((2, {"without": ""}), (3, {"anchors": "4"}), (5, {"position": "1d"})):
        assert at(number, **wanted).items() <= whole.items()
    assert at(4, layers="6,12,18,24") == pytest.approx({n: v for n, v in whole.items() if n != "pro"})
    lengths = {n: len(published(f"visualad_table{n}")) for n in range(1, 6)}
    assert lengths == {1: 13 * 7, 2: 7, 3: 6, 4: 7, 5: 6}
