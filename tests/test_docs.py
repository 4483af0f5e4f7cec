"""Pages link to files that exist, and README leads to every page of docs/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def links(page: Path) -> set[Path]:
    """Files that a page links to, without addresses and places within a page."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / t).resolve() for t in targets if not re.match(r"\w+:", t)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    assert not [target for target in links(page) if not target.exists()]


def test_readme_leads_to_every_page():
    missing = sorted(p.name for p in (ROOT / "docs").glob("*.md") if p not in links(ROOT / "README.md"))
    assert not missing, f"README.md does not link to {missing}"
