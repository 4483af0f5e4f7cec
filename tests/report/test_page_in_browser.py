"""What a person does with the page, in a real browser: slide, filter, search, enlarge, walk, mark, reload, export."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from stages.artifacts.tables import ANSWERS, JUDGEMENTS, QUESTIONS
from stages.evaluate.images import run
from stages.evaluate.questions import EvaluateQaConfig
from stages.evaluate.questions import run as evaluate_qa
from stages.report.grid import FIGURE, FORMULA
from stages.report.page import pictures
from tests.hostile import HOSTILE, QUIET, images
from tests.pages import page_data
from tests.qa import question, write, write_manifest
from tests.report.browser import card, chromium, counted, exported, findings, focused, names_shown, opened  # noqa: F401
from tests.report.page_world import SAID, config, world


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Bolts by padim with maps, and the answers of a second method about the first three; its config."""
    at = tmp_path_factory.mktemp("page")
    manifest, rows, maps = world(at, _save)
    for n, (said, score) in enumerate(((1, 0.9), (0, 0.2), (0, None))):
        answer = {"image_id": f"d/new-{n}.png", "method": SAID, "prediction": said, "score": score, "parsed": "strict"}
        rows.append(answer | {"response": f"Answer {n}.", "neighbours": [{"image_id": "d/good-1.png"}]})
    made = config(at, manifest, rows, maps)
    run(made, QUIET)
    return made


def _save(path, content=0):
    from PIL import Image

    pixels = content if isinstance(content, np.ndarray) else np.full((40, 60, 3), 20 * content, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.slow
def test_the_line_counts_as_it_moves(chromium, page):  # noqa: F811
    """Scores 5, 4, 2.9, 2.7, 2, 1 beside good ones whose line is 2.8; 5, 2.9 and 2 are anomalous."""
    with opened(chromium, page.report) as tab:
        tab.locator("#method").select_option(label="padim")
        count = counted(tab)
        said = "3 of 6 above the line · 1 of 5 good pictures above it (20.0 %) · 2 of 3 anomalous · 1 of 3 normal"
        count(said)
        assert names_shown(tab) == [*(f"new-{n}.png" for n in range(6)), "new-6.png"]
        slider = tab.get_by_label("Line: pictures with a higher score")
        slider.press("ArrowLeft")  # one more picture
        count("4 of 6 above the line · 1 of 5 good")
        tab.get_by_role("button", name="Raise the line by one picture").click()
        tab.get_by_role("button", name="Raise the line by one picture").click()
        count("2 of 6")
        assert tab.locator("#value").input_value() == "2.9"
        tab.locator("#value").fill("0.5")
        tab.locator("#value").press("Enter")
        count("6 of 6 above the line · 5 of 5 good pictures above it (100.0 %)")
        box = slider.bounding_box()
        tab.mouse.click(box["x"] + box["width"] * 0.97, box["y"] + box["height"] / 2)
        count("1 of 6")
        assert tab.locator("#grid .above").count() == 1
        tab.get_by_role("button", name="As drawn").click()
        count(said)


@pytest.mark.slow
def test_filters_search_and_order(chromium, page):  # noqa: F811
    with opened(chromium, page.report) as tab:
        tab.locator("#method").select_option(label="padim")
        show = tab.locator("#show")
        show.select_option("mistakes")  # 2 (anomalous) lies below 2.8, 4 (normal) above
        assert names_shown(tab) == ["new-1.png", "new-4.png"]
        assert "misses: anomalous, taken for normal (1)" in show.inner_text()
        show.select_option("failed")
        assert names_shown(tab) == ["new-6.png"] and "the camera was off" in tab.locator("#grid").inner_text()
        tab.get_by_role("button", name="Show all").click()
        tab.locator("#filter-defect").select_option("=dent")
        assert names_shown(tab) == ["new-2.png", "new-6.png"]
        counted(tab)("1 of 1 above the line")
        tab.get_by_role("button", name="Show all").click()
        tab.get_by_label("Search").fill("NEW-3")
        assert names_shown(tab) == ["new-3.png"] and tab.locator("#found").inner_text() == "1 of 7 pictures"
        tab.get_by_role("button", name="Show all").click()
        tab.locator("#order").select_option("nearest")
        assert names_shown(tab)[:3] == ["new-3.png", "new-2.png", "new-4.png"]  # 0.1 and 0.1 (2.7 before 2.9), 0.8
        tab.locator("#method").select_option(label=SAID)
        show.select_option("all")
        tab.locator("#rule").select_option("own")
        show.select_option("mistakes")  # it says no to the anomalous new-2, which has no score
        assert names_shown(tab) == ["new-2.png"] and "answered: normal" in tab.locator("#grid").inner_text()


@pytest.mark.slow
def test_enlarge_and_walk_with_the_keyboard(chromium, page):  # noqa: F811
    with opened(chromium, page.report) as tab:
        tab.locator("#method").select_option(label="padim")
        card(tab, "new-0.png").focus()
        tab.keyboard.press("ArrowRight")
        focused(tab, "new-1.png")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("Enter")
        detail = tab.get_by_role("dialog")
        assert detail.get_by_role("heading").first.inner_text().startswith("1 of 7: ")
        for part in ("score 5", "above 100.0 % of the good pictures", "scratch", "the mask outlined", "Answer 0."):
            assert part in detail.inner_text(), part
        assert "good picture most like it" in detail.inner_text() and SAID in detail.inner_text(), "side by side"
        shown = detail.locator("img")
        assert shown.count() == 6, "picture, overlay (two), map, the good one; the reference of the second method"
        assert all(shown.nth(n).evaluate("i => i.decode().then(() => i.naturalWidth)") > 0 for n in range(6))
        tab.keyboard.press("ArrowRight")
        assert detail.get_by_role("heading").first.inner_text().startswith("2 of 7")
        tab.keyboard.press("Escape")
        assert not detail.is_visible()
        focused(tab, "new-1.png")  # it went along
        tab.keyboard.press("End")
        tab.keyboard.press("Enter")
        assert "failed: the camera was off" in detail.inner_text()
        detail.get_by_role("button", name="Previous").click()
        assert "no such image" in detail.inner_text() and "not above the line" in detail.inner_text()
        detail.get_by_role("button", name="Line just below it").click()
        detail.get_by_text("score 1 · above 0.0 % of the good pictures · above the line").wait_for()
        detail.get_by_role("button", name="Close").click()
        counted(tab)("6 of 6")


@pytest.mark.slow
def test_marks_are_kept_and_exported(chromium, page):  # noqa: F811
    """The exported list is ranking.csv with a column of marks."""
    context = chromium.new_context(accept_downloads=True)
    tab = context.new_page()
    tab.goto(page.report.as_uri())
    tab.locator("#method").select_option(label="padim")
    card(tab, "new-1.png").focus()
    tab.keyboard.press("w")
    card(tab, "new-0.png").click()
    tab.get_by_role("dialog").get_by_role("button", name="Checked").click()
    tab.keyboard.press("Escape")
    tab.reload()
    tab.locator("#method").select_option(label="padim")
    assert "marked wrong" in card(tab, "new-1.png").inner_text()
    assert "marked checked" in card(tab, "new-0.png").inner_text()
    name, content = exported(tab, "Export as CSV")
    heads, *lines = csv.reader(io.StringIO(content))
    wanted_heads, *wanted = csv.reader(io.StringIO(page.ranking.read_text()))
    assert name == "ranking.csv" and heads == [*wanted_heads, "defect", "why it failed", "mark"]
    assert [line[:-3] for line in lines] == [line for line in wanted if line[1] == "padim"]
    assert [line[-1] for line in lines] == ["checked", "wrong", "", "", "", "", ""]
    tab.locator("#show").select_option("wrong")
    name, content = exported(tab, "Export as JSON")
    found = json.loads(content)
    assert name == "ranking.json" and found["method"] == "padim" and found["line"] == 2.8
    (row,) = found["rows"]
    assert row["mark"] == "wrong" and row["score"] == 4 and row["label"] == "normal"
    context.close()


@pytest.mark.slow
def test_own_pictures_lower_the_line_until_a_known_defect_is_caught(chromium, tmp_path, save_image):  # noqa: F811
    """Without labels: no mistakes to show, the list is that of ranking.csv."""
    manifest, rows, maps = world(tmp_path, save_image)
    for row in manifest[5:]:
        row |= {"label": None, "defect": None, "mask_paths": []}
    made = config(tmp_path, manifest, rows, maps)
    run(made, QUIET)
    with opened(chromium, made.report) as tab:
        assert "mistakes" not in tab.locator("#show").inner_text()
        tab.get_by_label("Search").fill("new-4")
        tab.locator("#grid button").first.click()
        tab.get_by_role("button", name="Line just below it").click()
        tab.keyboard.press("Escape")
        tab.get_by_role("button", name="Show all").click()
        counted(tab)("5 of 6 above the line · 3 of 5 good pictures above it (60.0 %)")
        tab.get_by_role("button", name="As drawn").click()
        counted(tab)("3 of 6")
        heads, *lines = csv.reader(io.StringIO(exported(tab, "Export as CSV")[1]))
        assert heads[-2:] == ["why it failed", "mark"] and lines[-1][-2:] == ["the camera was off", ""]
        assert [line[:-2] for line in (heads, *lines)] == list(csv.reader(_lines(made.ranking)))


def _lines(path):
    return path.read_text().splitlines()


@pytest.mark.slow
def test_no_name_becomes_markup_or_a_formula(chromium, tmp_path):  # noqa: F811
    bad = "<img src=x onerror=alert(1)>"
    made = images(tmp_path / "a", [f"{v}{n}" for n in range(2) for v in HOSTILE], HOSTILE[:-1], bad, bad, tables=None)
    run(made, QUIET)
    with opened(chromium, made.report) as tab:  # a dialog or a request would be an error
        before = tab.locator("script").count()
        card(tab, "=1+1").first.click()
        for _ in range(5):
            tab.keyboard.press("ArrowRight")
        assert bad in tab.get_by_role("dialog").inner_text()
        tab.keyboard.press("Escape")
        assert before == tab.locator("script").count() == 3 and tab.locator("img[onerror]").count() == 0
        lines = list(csv.reader(io.StringIO(exported(tab, "Export as CSV")[1], newline="")))
    assert len(lines) == 1 + 2 * len(HOSTILE)
    cells = [c for line in lines for c in line]
    assert not [c for c in cells if c.startswith(FORMULA[:-1]) and not FIGURE.fullmatch(c)]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_can_be_read_by_everybody(chromium, page, width, scheme):  # noqa: F811
    """axe, serious and critical findings: none, with and without a picture enlarged; nothing is wider than the page."""
    with opened(chromium, page.report, width, scheme) as tab:
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert findings(tab) == []
        tab.locator("#grid button").first.scroll_into_view_if_needed()
        tab.locator("#grid button").first.click()
        assert findings(tab) == []


@pytest.mark.slow
def test_a_large_page_has_its_pictures_in_a_folder(chromium, page, tmp_path, monkeypatch):  # noqa: F811
    large = replace(page, out=tmp_path / "m", report=tmp_path / "a b#?%/report.html", ranking=None)
    folder = large.report.with_name("report_files")
    monkeypatch.setattr(pictures, "LIMIT", 3000)
    monkeypatch.setattr("stages.report.page.render.LIMIT", 3000)
    run(large, QUIET)
    assert {p.name for p in folder.rglob("*.webp")} >= {"p0.webp", "h1-0.webp"}
    assert all(a.startswith("report_files/") for a in page_data(large.report).pictures.values())
    with opened(chromium, large.report) as tab:
        tab.locator("#grid button").first.click()
        shown = tab.get_by_role("dialog").locator("img")
        assert all(
            shown.nth(n).evaluate("i => i.decode().then(() => i.naturalWidth)") > 0 for n in range(shown.count())
        )
    monkeypatch.undo()
    run(replace(large, out=tmp_path / "m2"), QUIET)
    assert not folder.exists() and page_data(large.report).pictures["p0"].startswith("data:image/webp")


@pytest.mark.slow
def test_of_thousands_only_those_in_view_are_in_the_document(chromium, tmp_path):  # noqa: F811
    names = [f"{n:04d}.png" for n in range(3000)]
    manifest = [
        {"image_id": n, "path": "i.png", "dataset": "d", "category": "c", "split": "test", "mask_paths": []}
        for n in names
    ]
    rows = [{"image_id": n, "method": "m", "score": float(n[:4])} for n in names]
    made = config(tmp_path, manifest, rows, ranking=None)
    _save(tmp_path / "i.png")
    run(made, QUIET)
    with opened(chromium, made.report) as tab:
        assert tab.locator("#grid li").first.get_attribute("aria-setsize") == "3000"
        tab.locator("#grid button").first.focus()
        tab.keyboard.press("End")
        assert tab.evaluate("document.activeElement.closest('li').getAttribute('aria-posinset')") == "3000"
        assert 5 < tab.locator("#grid li").count() < 120
        tab.keyboard.press("Home")
        tab.keyboard.press("PageDown")
        tab.keyboard.press("Enter")
        assert tab.get_by_role("dialog").is_visible()


@pytest.mark.slow
def test_values_of_a_figure_under_the_pointer_and_by_keys(chromium, tmp_path):  # noqa: F811
    manifest, rows, _ = world(tmp_path, _save)
    for n, row in enumerate(manifest):
        row |= {"dataset": "vidad", "category": "fruits", "condition": ("white_bg", "blurry")[n // 2 % 2]}
    made = config(tmp_path, manifest, rows)
    run(made, QUIET)
    with opened(chromium, made.report) as tab:
        tab.locator("[data-figures=figure5]").scroll_into_view_if_needed()  # it is drawn when one comes to it
        figure = tab.locator("[data-figures=figure5] svg")
        figure.locator("circle").first.hover()
        tip = tab.locator("[data-figures=figure5] .tip")
        assert tip.inner_text().startswith("fruits · White BG · AUROC ")
        figure.focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert tip.inner_text().startswith("fruits · ")
        assert "1 of 10 scenarios, 2 of 5 conditions" in tab.locator("header").first.inner_text()
        tab.locator("#task-histograms svg").first.scroll_into_view_if_needed()
        assert tab.locator("#task-histograms svg rect").count() > 0


@pytest.mark.slow
def test_questions_with_answers_marks_and_groups(chromium, tmp_path, save_image):  # noqa: F811
    """Two questions about a cable, one answered wrong, and one about a screw, which failed."""
    rows = [("d/cable/a", "cable", "test", 1), ("d/screw/s", "screw", "test", 0), ("d/cable/ref", "cable", "train", 0)]
    asked = [
        question(f"a{n}", "d/cable/a", reference_id="d/cable/ref", level=level) for n, level in ((0, "x"), (1, "y"))
    ]
    asked.append(question("s", "d/screw/s", reference_id=None, level="x", question="<b>Why?</b>"))
    answers = [
        {"question_id": "a0", "method": "m", "choice": 0, "parsed": "strict", "response": "A."},
        {"question_id": "a1", "method": "m", "choice": 2, "parsed": "strict", "response": "=C."},
        {"question_id": "s", "method": "m", "error": "the server was away"},
    ]
    marks = [{"question_id": "a0", "method": "m", "category": 5, "location": 4, "logic": 3}]
    made = EvaluateQaConfig(
        questions=write(tmp_path / "q.parquet", QUESTIONS, asked),
        answers=write(tmp_path / "a.parquet", ANSWERS, answers),
        judgements=write(tmp_path / "j.parquet", JUDGEMENTS, marks),
        manifest=write_manifest(tmp_path, save_image, rows),
        root=tmp_path,
        out=tmp_path / "e",
        report=tmp_path / "r.html",
        encoder="none",
        resamples=0,
    )
    evaluate_qa(made, QUIET)
    with opened(chromium, made.report) as tab:
        assert tab.locator("#grid li").count() == 3 and not tab.locator("#line").is_visible()
        assert tab.locator("#grid .said").all_inner_texts() == ["right", "wrong", "failed"]
        tab.locator("#show").select_option("mistakes")
        tab.locator("#grid button").click()
        detail = tab.get_by_role("dialog").inner_text()
        for part in (
            "(chosen)",
            "✓",
            "reply\n\n=C.",
            "1 of 2 questions about this image right",
            "right: ",
            "reference image",
        ):
            assert part in detail, part
        assert findings(tab) == []
        tab.keyboard.press("Escape")
        heads, line = csv.reader(io.StringIO(exported(tab, "Export as CSV")[1]))
        assert dict(zip(heads, line, strict=True))["reply"] == "'=C."
        tab.get_by_role("button", name="Show all").click()
        tab.locator("#filter-level").select_option("=x")
        tab.locator("#grid button").first.click()
        assert "judge: category 5, location 4, logic 3" in tab.get_by_role("dialog").inner_text()
        tab.keyboard.press("ArrowRight")
        assert "<b>Why?</b>" in tab.get_by_role("dialog").inner_text()
