"""The page in a real browser where it is easily wrong: small windows, ends of a list, several tabs, a kind without a
line, a page without its folder, on paper."""

import json
import shutil

import pytest

from stages.evaluate.images import run
from stages.report.cells import digits
from tests.hostile import QUIET
from tests.report.browser import card, chromium, exported, focused, names_shown, opened  # noqa: F401
from tests.report.page_world import config, world


@pytest.fixture
def bolts(tmp_path, save_image):
    """tests.report.page_world.world and its page, by padim with maps."""
    made = config(tmp_path, *world(tmp_path, save_image))
    run(made, QUIET)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("window", [(683, 330), (1366, 620), (1920, 940), (360, 740)])
def test_maps_and_outlines_lie_on_the_picture(chromium, bolts, window):  # noqa: F811
    """The map is placed in shares of its box's side, which therefore is square in every window."""
    with opened(chromium, bolts.report) as tab:
        tab.set_viewport_size(dict(zip(("width", "height"), window, strict=True)))
        card(tab, "new-0.png").click()
        boxes = [b.bounding_box() for b in tab.locator("#shown .picture").all()]
        assert len(boxes) == 4 and all(abs(b["width"] - b["height"]) < 1 for b in boxes), boxes
        assert all(b["width"] > 150 for b in boxes), boxes
        over = tab.locator("#shown .picture").nth(1)
        heat, box = over.locator(".heat").bounding_box(), over.bounding_box()
        # 60 x 40 px in a square: as wide as the box, two thirds as high, in its middle
        assert heat["width"] == pytest.approx(box["width"], abs=1.5)
        assert heat["height"] == pytest.approx(box["height"] * 2 / 3, abs=1.5)
        assert heat["y"] - box["y"] == pytest.approx(box["height"] / 6, abs=1.5)


@pytest.mark.slow
def test_keys_work_at_both_ends_and_where_a_button_goes_away(chromium, bolts):  # noqa: F811
    with opened(chromium, bolts.report) as tab:
        title = tab.locator("#detail-title")
        card(tab, "new-1.png").click()
        tab.get_by_role("button", name="Previous").click()
        assert title.inner_text().startswith("1 of 7")
        tab.keyboard.press("c")
        assert tab.locator("#checked").get_attribute("aria-pressed") == "true"
        tab.keyboard.press("ArrowRight")
        assert title.inner_text().startswith("2 of 7")
        for _ in range(4):
            tab.keyboard.press("ArrowRight")
        tab.get_by_role("button", name="Line just below it").focus()
        tab.keyboard.press("ArrowRight")  # a failed row, which has no such button; and the last one
        assert title.inner_text().startswith("7 of 7")
        tab.keyboard.press("w")
        assert tab.locator("#wrong").get_attribute("aria-pressed") == "true"
        tab.keyboard.press("ArrowLeft")
        assert title.inner_text().startswith("6 of 7")
        tab.mouse.click(5, 5)  # beside it
        assert not tab.get_by_role("dialog").is_visible()


@pytest.mark.slow
def test_the_list_goes_on_where_a_marked_picture_left_it(chromium, bolts):  # noqa: F811
    with opened(chromium, bolts.report) as tab:
        tab.locator("#show").select_option("open-marks")
        card(tab, "new-2.png").click()
        tab.keyboard.press("c")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("w")
        tab.keyboard.press("Escape")
        focused(tab, "new-4.png")
        assert names_shown(tab) == ["new-0.png", "new-1.png", "new-4.png", "new-5.png", "new-6.png"]


@pytest.mark.slow
def test_marks_of_two_tabs_and_of_a_run_that_is_made_again(chromium, bolts, save_image):  # noqa: F811
    """They follow the picture: a new score keeps them, another picture of the same name has none."""
    context = chromium.new_context()
    one, two = context.new_page(), context.new_page()
    for tab in (one, two):
        tab.goto(bolts.report.as_uri())
        tab.wait_for_selector("#looking:not([hidden])")
    two.bring_to_front()
    card(two, "new-1.png").focus()
    two.keyboard.press("c")
    one.bring_to_front()
    card(one, "new-1.png").get_by_text("marked checked").wait_for()
    card(one, "new-0.png").focus()
    one.keyboard.press("w")
    rows = world(bolts.root, save_image, (5.5, 4, 2.9, 2.7, 2, 1, 3.3))
    save_image(bolts.root / "new-1.png", 99)
    run(config(bolts.root, *rows), QUIET.__class__(quiet=True, overwrite=True))
    one.reload()
    assert "marked wrong" in card(one, "new-0.png").inner_text(), "another score and one more picture"
    assert "marked" not in card(one, "new-1.png").inner_text(), "another picture"
    context.close()


@pytest.mark.slow
def test_a_kind_whose_good_pictures_have_no_scores_has_no_line(chromium, tmp_path, save_image):  # noqa: F811
    """As in ranking.csv: neither above nor not above, beside a kind that has one."""
    manifest, rows, _ = world(tmp_path, save_image)
    other = [{**m, "image_id": f"e{m['image_id']}", "category": "nut"} for m in manifest if m["split"] == "test"]
    rows += [{**r, "image_id": f"e{r['image_id']}"} for r in rows if "new" in r["image_id"]]
    made = config(tmp_path, manifest + other, rows)
    run(made, QUIET)
    with opened(chromium, made.report) as tab:
        assert tab.locator("#count").inner_text().startswith("3 of 6 above the line")
        assert "6 without a line: no good picture of their kind has a score" in tab.locator("#found").inner_text()
        assert tab.locator("#grid .above").count() == 3
        listed = json.loads(exported(tab, "Export as JSON")[1])
        assert [r["above the line"] for r in listed["rows"] if r["category"] == "nut"] == [*[""] * 6, "no score"]
        tab.locator("#filter-category").select_option("=nut")
        assert tab.locator("#line").is_hidden() and tab.locator("#grid .above").count() == 0


@pytest.mark.slow
def test_a_page_without_its_folder_says_so(chromium, bolts, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("stages.report.page.render.LIMIT", 0)
    run(config(bolts.root, *_tables(bolts)), QUIET.__class__(quiet=True, overwrite=True))
    alone = tmp_path / "handed on" / "report.html"
    alone.parent.mkdir()
    shutil.copy(bolts.report, alone)
    tab = chromium.new_page()  # a picture that is missing is an error in its console
    tab.goto(alone.as_uri())
    tab.get_by_text("The pictures are missing: the folder report_files has to lie beside this page.").wait_for()
    tab.close()


def _tables(made):
    import pyarrow.parquet as pq

    return [pq.read_table(p).to_pylist() for p in (made.manifest, made.scores)]


def test_on_paper_are_all_that_are_shown(chromium, bolts):  # noqa: F811
    """Up to 200; the grid holds but those in view, with the keyboard's, until it is printed."""
    with opened(chromium, bolts.report, width=360) as tab:
        tab.emulate_media(media="print")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert len(names_shown(tab)) == 7
        assert tab.locator("#printed").inner_text() == "Printed: the first 7 of 7 shown; the exported list has all."
        tops = [c.bounding_box() for c in tab.locator("#grid li").all()]
        assert len({(round(b["x"]), round(b["y"])) for b in tops}) == 7, "none lies on another"


def test_digits_tell_scores_apart():
    assert digits([0.1, 0.25, 0.1]) == 6
    assert digits([1_000_000.0, 1_000_001.0, 1_000_001.5]) == 9
    assert digits([1.0, 1.0 + 1e-12]) == 17
    assert digits([]) == 6
    assert digits([*range(20), 1.0 + 1e-7]) == 6, "two of twenty-one that look alike"
