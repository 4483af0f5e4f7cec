"""What an answer costs: seconds and tokens per image, beside the LVLM paper's 4.74 seconds (section 6)."""

from collections.abc import Iterable, Sequence

from stages.report.cells import Cell
from stages.report.grid import Grid
from stages.results.scores import TaskScores

PAPER_SECONDS = 4.74  # an image
PAPERS = (
    "mvtec-ad, visa",
    "Qwen2-VL-72B-AWQ (published)",
    f"{PAPER_SECONDS}",
    "-",
    "-",
    "-",
    "two A100 of 40 GiB, vLLM",
)
NOTE = (
    "LVLM paper, section 6. Means over the images that say it, training images included. Seconds: the time that the"
    " engine worked, divided by its answers; it asks about several images at once, so that one answer alone takes"
    " longer. Loading the model is left out."
)


def table(tasks: Sequence[TaskScores], provenance: Iterable[dict]) -> Grid:
    """A row for each data set and method that was asked in words; provenance: records of the scores."""
    where: dict[str, dict[str, None]] = {}
    for record in provenance:
        devices = [run["device"] for run in record.get("runs", []) if run["rows"]]
        where.setdefault(record["parameters"].get("method", ""), {}).update(dict.fromkeys(devices))
    lines = []
    for dataset, method in dict.fromkeys((t.dataset, t.method) for t in tasks):
        rows = [s.row for t in tasks if (t.dataset, t.method) == (dataset, method) for s in t.rows]
        answered = [r for r in rows if r["seconds"] is not None and r["parsed"]]
        in_words = method.startswith("lvlm/") or any(r["prompt_tokens"] is not None for r in answered)
        if answered and in_words:
            means = (_mean(answered, n) for n in ("seconds", "prompt_tokens", "completion_tokens"))
            cells = (_decimals(value, places) for value, places in zip(means, (2, 0, 0), strict=True))
            lines.append((dataset, f"{method}, ours", *cells, str(len(answered)), "; ".join(where.get(method, {}))))
    heads = ("data set", "method", "s / image", "tokens read", "tokens written", "answers", "ran on")
    return Grid("cost", "Time and tokens per image", heads, (*lines, PAPERS) if lines else (), NOTE, printed=True)


def _mean(rows: Sequence[dict], column: str) -> float | None:
    known = [r[column] for r in rows if r[column] is not None]
    return sum(known) / len(known) if known else None


def _decimals(value: float | None, places: int) -> str:
    return "-" if value is None else Cell(value, places)
