"""A real browser on pages from disk: Chromium, driven by Playwright."""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SERIOUS = ("serious", "critical")  # of axe's findings


@pytest.fixture(scope="module")
def chromium():
    """The browser. Where it is missing the test is skipped, under .ci/run (CI) it fails."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed (pip install -e '.[test]')")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        _missing("no Chromium (apt-get install chromium, or CHROMIUM=/path/of/one)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def _missing(why):
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@contextmanager
def opened(browser, page: Path, width=1600, scheme="light"):
    """The page as a tab, from the file system without a network. Raises at the end what it found wrong: an error in its
    script, a request for anything that lies elsewhere."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    wrong: list[str] = []
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    tab.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    tab.on("dialog", lambda d: (wrong.append(f"dialog: {d.message}"), d.dismiss()))
    tab.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("request", lambda r: wrong.append(r.url) if r.url.split(":")[0] not in ("file", "data", "blob") else None)
    try:
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("#looking:not([hidden])")
        yield tab
    finally:
        context.close()
    assert not wrong, wrong


def names_shown(tab):
    """Names on the cards that are in the document, in order."""
    return tab.locator("#grid .name").all_inner_texts()


def card(tab, name):
    return tab.locator("#grid button", has_text=name)


def focused(tab, name):
    """Waits until the card has the focus: a dialog gives it back after it has closed."""
    from playwright.sync_api import expect

    expect(card(tab, name)).to_be_focused()


def exported(tab, button):
    """(name, content) of what a button saves."""
    with tab.expect_download() as download:
        tab.get_by_role("button", name=button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8-sig")


def findings(tab):
    """axe's serious ones: rule and elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [(v["id"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found if v["impact"] in SERIOUS]


def counted(tab):
    """Waits until the sentence under the line begins with a text."""
    from playwright.sync_api import expect

    return lambda text: expect(tab.locator("#count")).to_have_text(re.compile("^" + re.escape(text)))
