"""VMAD's tables: cross-dataset (I), cross-category (II), with and without its two parts (III), patches (IV),
projectors (V).

The paper's AP is image-level. Its Table V prints 114 tokens for LTC, where rho = 2 gives 144; the published rows here
are as printed. What its "+ Multi-level Feature" lacks of LTC is not said, so that none of our projectors is that row.
"""

from collections.abc import Iterable, Sequence

from stages.report.cells import over_categories, percent, pro_name
from stages.report.grid import Grid, published
from stages.results.scores import TaskScores

METRICS = {"auroc": "Img", "pixel_auroc": "Pixel", "pro": "PRO"}
CROSS_DATASET = ("mvtec-ad", "visa", "wfdd")
RIAD = "riad"
IN_PAPER = "Published: VMAD's paper, Table {}. %, Img and Pixel are AUROC, means over categories."
SPEED = (
    "s / image: a batch from its encoding to its masks, loading aside, divided by its images; tokens / s: all"
    " tokens that the language model wrote, <seg> included, by the sum of those seconds, so that short answers"
    " count the encoding above all (score --query description asks for longer ones)."
)


def all_tables(tasks: Sequence[TaskScores], rows: list[dict], provenance: Iterable[dict]) -> list[Grid]:
    """The tables that the data call for: none without a run of VMAD, which its provenance or its name tells."""
    records = [r for r in provenance if "vmad" in r.get("notes", {})]
    made = made_of(records)
    ours = {(t.dataset, t.method): None for t in tasks if t.method in made or t.method.startswith("vmad")}
    sets = {d for d, _ in ours}
    there = list(dict.fromkeys((t.dataset, t.method) for t in tasks if t.dataset in sets))
    known = [(d, m) for d, m in ours if m in made]
    return [
        table1(tasks, rows, there, made, records),
        table2(rows, there),
        table3(rows, known, made),
        table4(rows, known, made),
        table5(tasks, rows, known, made, records),
    ]


def made_of(records: Iterable[dict]) -> dict[str, dict]:
    """method -> projector, dssl, boxes, tokens. A name that stands for models of several kinds is left out."""
    found: dict[str, list[dict]] = {}
    for r in records:
        found.setdefault(r["parameters"]["method"], []).append(r["notes"]["vmad"])
    return {m: kinds[0] for m, kinds in found.items() if all(k == kinds[0] for k in kinds)}


def seconds_per_image(tasks: Iterable[TaskScores]) -> float | None:
    """Mean over the images that say how long they took."""
    known = [s.row["seconds"] for t in tasks for s in t.rows if s.row["seconds"] is not None]
    return sum(known) / len(known) if known else None


def tokens_per_second(tasks: Iterable[TaskScores]) -> float | None:
    """Tokens written over the seconds of the same images, see SPEED."""
    known = [
        (s.row["completion_tokens"], s.row["seconds"])
        for t in tasks
        for s in t.rows
        if s.row["completion_tokens"] is not None and s.row["seconds"]
    ]
    return sum(n for n, _ in known) / sum(s for _, s in known) if known else None


def table1(
    tasks: Sequence[TaskScores],
    rows: list[dict],
    there: Sequence[tuple[str, str]],
    made: dict[str, dict],
    records: Iterable[dict],
) -> Grid:
    """Table I: the data sets of the paper side by side; the time is over all of them. The degree sign is the paper's,
    of models that inject from the last layer alone (--projector ltc-last)."""
    sets = [d for d in CROSS_DATASET if any(d == s for s, _ in there)]
    metrics = METRICS | {"ap": "AP"}
    lines = []
    for method in dict.fromkeys(m for d, m in there if d in sets):
        mine = [t for t in tasks if t.method == method and t.dataset in sets]
        lines.append(
            (
                f"{method}{'°' * (made.get(method, {}).get('projector') == 'ltc-last')}, ours",
                *(_percent(rows, d, method, m) for d in sets for m in metrics),
                _decimals(seconds_per_image(mine), 2),
            )
        )
    theirs = {(p["dataset"], p["method"]): p for p in published("vmad_table1")}
    for method in dict.fromkeys(m for _, m in theirs) if lines else ():
        of = [theirs[d, method] for d in sets]
        lines.append((f"{method} (published)", *(p[m] for p in of for m in metrics), of[0]["seconds"]))
    heads = ("method", *(f"{d} {name}" for d in sets for name in metrics.values()), "s / image")
    return Grid(
        "vmad-table1",
        "Zero-shot, trained on another data set (VMAD, Table I)",
        heads,
        tuple(lines),
        f"{IN_PAPER.format('I')} AP: of images. BGAD is supervised; VMAD°, as printed: features of the last"
        f" layer alone are injected in LTC, ours by --projector ltc-last. {SPEED.partition('; ')[0]}."
        f"{_ran_on(records)}",
        printed=True,
    )


def table2(rows: list[dict], there: Sequence[tuple[str, str]]) -> Grid:
    """Table II: the four test objects that the paper names, and the mean over all."""
    theirs = published("vmad_table2")
    objects = list(dict.fromkeys(p["category"] for p in theirs if p["category"] != "mean"))
    tested = sorted({r["category"] for r in rows if r["dataset"] == RIAD and r["category"] != "mean"})
    lines = []
    for _, method in (pair for pair in there if pair[0] == RIAD):
        cells = []
        for name in objects:
            found = {
                r["metric"]: r["value"]
                for r in rows
                if (r["dataset"], r["method"], r["category"]) == (RIAD, method, name)
            }
            cells += [percent(found.get(m)) for m in _named(rows)]
        lines.append((f"{method}, ours", *cells, *(_percent(rows, RIAD, method, m) for m in METRICS)))
    of = {(p["category"], p["method"]): p for p in theirs}
    lines += (
        [
            (f"{method} (published)", *(of[c, method][m] for c in (*objects, "mean") for m in METRICS))
            for method in dict.fromkeys(p["method"] for p in theirs)
        ]
        if lines
        else []
    )
    heads = ("method", *(f"{c.replace('_', ' ')} {name}" for c in (*objects, "Average") for name in METRICS.values()))
    return Grid(
        "vmad-table2",
        "Objects that training has not seen, RIAD (VMAD, Table II)",
        heads,
        tuple(lines),
        f"{IN_PAPER.format('II')} Average: published, over 8 objects, of which the paper names these four;"
        f" ours, over {len(tested)}: {', '.join(tested)}.",
        printed=True,
    )


def table3(rows: list[dict], known: Sequence[tuple[str, str]], made: dict[str, dict]) -> Grid:
    """Table III: ours above the published row of the same parts. Without LTC there is LLaVA's own MLP; other
    projectors are Table V's."""
    parts = {
        (d, m): (_yes(made[m]["projector"] == "ltc"), _yes(made[m]["dssl"]))
        for d, m in known
        if made[m]["projector"] in ("ltc", "mlp")
    }
    theirs = {(p["dataset"], p["ltc"], p["dssl"]): p for p in published("vmad_table3")}
    papers = list(dict.fromkeys(d for d, _, _ in theirs))
    sets = [*dict.fromkeys(d for d, _ in parts if d not in papers), *papers]
    lines = []
    for ltc, dssl in dict.fromkeys((ltc, dssl) for _, ltc, dssl in theirs) if len({*parts.values()}) > 1 else ():
        for method in dict.fromkeys(m for (_, m), p in parts.items() if p == (ltc, dssl)):
            lines.append((ltc, dssl, f"{method}, ours", *(_percent(rows, d, method, m) for d in sets for m in METRICS)))
        lines.append(
            (
                ltc,
                dssl,
                "VMAD (published)",
                *(theirs[d, ltc, dssl][m] if d in papers else "-" for d in sets for m in METRICS),
            )
        )
    heads = ("LTC", "DSSL", "method", *(f"{d} {name}" for d in sets for name in METRICS.values()))
    return Grid(
        "vmad-table3",
        "With and without LTC and DSSL (VMAD, Table III)",
        heads,
        tuple(lines),
        f"{IN_PAPER.format('III')} Without LTC ours has LLaVA's own MLP; what the paper's has is not said.",
        printed=True,
    )


def table4(rows: list[dict], known: Sequence[tuple[str, str]], made: dict[str, dict]) -> Grid:
    """Table IV: ours by N_b, above the published row of the same number. It takes two runs that differ in it."""
    kinds: dict[tuple, dict[tuple[str, str], int]] = {}
    for dataset, method in known:
        if boxes := made[method].get("boxes"):
            kinds.setdefault((made[method]["projector"], made[method]["tokens"]), {})[dataset, method] = boxes
    ours = {key: n for of_kind in kinds.values() if len(set(of_kind.values())) > 1 for key, n in of_kind.items()}
    theirs = {(p["dataset"], int(p["boxes"])): p for p in published("vmad_table4")}
    papers = list(dict.fromkeys(d for d, _ in theirs))
    sets = [*dict.fromkeys(d for d, _ in ours if d not in papers), *papers]
    lines = []
    for boxes in sorted({*ours.values(), *(n for _, n in theirs)}) if ours else ():
        for method in dict.fromkeys(m for (_, m), n in ours.items() if n == boxes):
            values = (_percent(rows, d, method, m) for d in sets for m in METRICS)
            lines.append((str(boxes), f"{method}, ours", *values))
        if (papers[0], boxes) in theirs:
            printed = (theirs[d, boxes][m] if d in papers else "-" for d in sets for m in METRICS)
            lines.append((str(boxes), "VMAD (published)", *printed))
    heads = ("N_b", "method", *(f"{d} {name}" for d in sets for name in METRICS.values()))
    return Grid(
        "vmad-table4",
        "Random patches per image in DSSL (VMAD, Table IV)",
        heads,
        tuple(lines),
        f"{IN_PAPER.format('IV')} The paper's others have N_b = 32.",
        printed=True,
    )


def table5(
    tasks: Sequence[TaskScores],
    rows: list[dict],
    known: Sequence[tuple[str, str]],
    made: dict[str, dict],
    records: Iterable[dict],
) -> Grid:
    """Table V: ours above the published row of the same projector; what it costs, on any data set."""
    theirs = published("vmad_table5")
    lines = []
    for p in theirs if known else ():
        for dataset, method in (pair for pair in known if made[pair[1]]["projector"] == p["projector"]):
            mine = [t for t in tasks if (t.dataset, t.method) == (dataset, method)]
            count = made[method]["tokens"]
            lines.append(
                (
                    dataset,
                    f"{method}, ours",
                    p["projector"],
                    "-" if count is None else str(count),
                    _decimals(tokens_per_second(mine), 1),
                    _decimals(seconds_per_image(mine), 3),
                    *(_percent(rows, dataset, method, m) for m in METRICS),
                )
            )
        lines.append(
            (
                "mvtec-ad",
                f"{p['method']} (published)",
                p["projector"] or "-",
                p["tokens"],
                p["tps"],
                "-",
                *(p[m] for m in METRICS),
            )
        )
    heads = ("data set", "method", "projector", "tokens of an image", "tokens / s", "s / image", *METRICS.values())
    return Grid(
        "vmad-table5",
        "Visual projectors, and what they cost (VMAD, Table V)",
        heads,
        tuple(lines),
        f"{IN_PAPER.format('V')} The 114 tokens of LTC are as printed; rho = 2 gives 144. {SPEED} How the paper"
        f" counts is not said. Rows of other data sets cannot be compared.{_ran_on(records)}",
        printed=True,
    )


def _named(rows: list[dict]) -> tuple[str, ...]:
    """METRICS as the rows call them."""
    return tuple(pro_name(rows) if m == "pro" else m for m in METRICS)


def _percent(rows: list[dict], dataset: str, method: str, metric: str) -> str:
    return percent(over_categories(rows, dataset, method, pro_name(rows) if metric == "pro" else metric))


def _decimals(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _ran_on(records: Iterable[dict]) -> str:
    """' Ours: cuda bf16, batches of 8.', which times depend on."""
    said = dict.fromkeys(
        f"{run['device']}, batches of {r['notes']['batch_size']}" for r in records for run in r["runs"] if run["rows"]
    )
    return f" Ours: {'; '.join(said)}." if said else ""
