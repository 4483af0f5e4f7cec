"""How scores or answers were made, from the records up the whole chain: a row per method, a line per step."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts.origin import THERE, UNCHANGED, Made, chain, tops
from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS
from stages.report.cells import shortened
from stages.report.grid import Grid

EMBEDDED = {  # what adcli brings along, and what it cannot do; said where it met real data
    "scene": "scene reads adcli's rendered scenes and is no model of real photographs",
    "rules": "rules swaps words that adcli's own vocabulary has and is no language model",
    "minilm": "minilm is the packaged all-MiniLM-L6-v2, the paper's encoder is bert-base-uncased",
    "words": "words compares words with the expert's answer and is no judge model",
    "templates": "templates fills sentences from labels and masks, no model wrote them",
}
CHOSEN = ("vlm", "rewriter", "encoder", "judge")  # settings that may name one of these
MADE_UP = "-synthetic"  # how names of data sets end that `data synth` rendered
TRAINING = ("train-encoder", "train-visualad", "finetune-mllm")
RECIPE = ("epochs", "batch_size", "learning_rate", "k", "shots", "layers", "size", "image_score")
COLUMNS = ("method", "captioner", "rewriter", "encoder", "prompt set", "model", "trained on", "recipe", "remarks")
DIGEST = re.compile(r"[0-9a-f]{32}")
MOST = 3  # prompts that are named
LONGEST = 100  # characters of one setting in a line

Step = tuple[Made, dict[str, Any]]  # a table, and its record


@dataclass(frozen=True)
class HowMade:
    """table: a row per method; lines: every step, each after those it was made from; inputs: (method, name, path) of
    each table in its chain, `negatives` for instance; embedded: method -> those of EMBEDDED that met real data."""

    table: Grid
    lines: tuple[str, ...]
    inputs: tuple[tuple[str, str, Path], ...] = ()
    embedded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def cautions(self) -> list[str]:
        """A line per method that names what adcli brings along."""
        return [f"{m}: {'; '.join(EMBEDDED[word] for word in words)}" for m, words in self.embedded.items()]

    @property
    def tables(self) -> list[Grid]:
        """The table where it has rows: other tools' scores have no record."""
        return [self.table] if self.table.rows else []


def how_made(paths: Iterable[Path], datasets: Collection[str]) -> HowMade:
    """paths: of scores, answers or judgements; datasets: what they are about. Raises InputError as `chain` does."""
    rows: list[tuple[str, ...]] = []
    lines: list[str] = []
    inputs: list[tuple[str, str, Path]] = []
    embedded: dict[str, tuple[str, ...]] = {}
    real = not all(name.endswith(MADE_UP) for name in datasets)
    for path in paths:
        found = chain(path)
        for top in tops(path, found):
            steps = list(in_order(top, found))
            lines += [line_of(made) for made in steps]
            if top.record:
                recorded = [(m, m.record) for m in steps if m.record]
                rows.append(row_of(top, recorded, real))
                if words := embedded_of(recorded) if real else ():
                    embedded[rows[-1][0]] = unique((*embedded.get(rows[-1][0], ()), *words))
                inputs += [(rows[-1][0], i.name, Path(t)) for m in steps for i in m.inputs for t in i.tables]
    note = (
        "From the records beside the tables, up to the manifest. Trained on: data sets. Recipe: what matters most of"
        " the settings. Remarks: what has changed since it was read, and, on data that adcli did not render itself,"
        " which parts are those that adcli brings along."
    )
    return HowMade(
        Grid("made", "What the methods are made of", COLUMNS, tuple(dict.fromkeys(rows)), note),
        unique(lines),
        tuple(dict.fromkeys(inputs)),
        embedded,
    )


def embedded_of(steps: list[Step]) -> tuple[str, ...]:
    """Those of EMBEDDED that a step's settings name."""
    named = [r["parameters"].get(n) for _, r in steps for n in CHOSEN]
    return tuple(word for word in EMBEDDED if word in named)


def in_order(made: Made, found: Mapping[str, Made], seen: set[str] | None = None) -> Iterator[Made]:
    """What a table was made from, each after its own inputs and once; the table itself last."""
    seen = set() if seen is None else seen
    seen.add(made.path)
    for path in (t for given in made.inputs for t in given.tables):
        if path not in seen:
            yield from in_order(found[path], found, seen)
    yield made


def row_of(top: Made, steps: list[Step], real: bool) -> tuple[str, ...]:
    """One line of the table, see COLUMNS. steps: of `in_order`, those with a record; real: not rendered by adcli."""
    own = (top.record or {})["parameters"]
    trained = [s for s in steps if s[1]["stage"] in TRAINING]
    model = [own[n] for n in ("vlm", "judge", "backbone") if n in own]
    for said in [r["notes"] | r["parameters"] for _, r in trained] if not model else ():
        model += [said[n] for n in ("backbone", "base", "llava", "sam") if said.get(n)]
    trained_on = [name for made, _ in trained for name in datasets_of(made)]
    if "training_scores" in own:  # anomalib's, which have no table of models
        trained_on.append("each task's normal pictures")
    imported = [f"imported from {r['notes']['imported']}" for _, r in steps if r["notes"].get("imported")]
    remarks = imported + [EMBEDDED[word] for word in (embedded_of(steps) if real else ())]
    remarks += [f"{i.name}: {i.state}" for made, _ in steps for i in made.inputs if i.state not in (UNCHANGED, THERE)]
    cells = (
        settings_of(steps, "caption", "vlm"),
        settings_of(steps, "rewrite-negatives", "rewriter"),
        settings_of(steps, "train-encoder", "encoder"),
        prompts_of(steps),
        model,
        trained_on,
    )
    recipes = [recipe for r in (*(r for _, r in trained), top.record or {}) if (recipe := recipe_of(r))]
    joined = [", ".join(unique(map(plain_name, c))) for c in cells] + ["; ".join(recipes), "; ".join(unique(remarks))]
    return (str(own.get("method", Path(top.path).name)), *(text or "-" for text in joined))


def settings_of(steps: list[Step], stage: str, name: str) -> list[str]:
    """The values of one setting in all steps of one stage."""
    return [str(r["parameters"][name]) for _, r in steps if r["stage"] == stage and name in r["parameters"]]


def prompts_of(steps: list[Step]) -> list[str]:
    """Ids of prompts, the first few; of lvlm the kind that was chosen."""
    found: list[str] = []
    for _, record in steps:
        said = record["parameters"].get("prompts")
        found += said if isinstance(said, dict) else ()
        if isinstance(kind := record["parameters"].get("prompt"), str) and not DIGEST.fullmatch(kind):
            found.append(kind)
    found = list(unique(found))
    return found if len(found) <= MOST + 1 else [*found[:MOST], f"{len(found) - MOST} more"]


def datasets_of(made: Made) -> list[str]:
    """Names of the data sets that the models of a table were trained on."""
    return sorted(set(read_table(Path(made.path), ENCODERS, partial=True)["dataset"].to_pylist()))


def recipe_of(record: dict) -> str:
    """'train-encoder: epochs 20, batch_size 16'; empty where nothing of RECIPE was set."""
    said = ", ".join(f"{n} {value_of(v)}" for n in RECIPE if (v := record["parameters"].get(n)) is not None)
    return f"{record['stage']}: {said}" if said else ""


def line_of(made: Made) -> str:
    """One line on how a table was made, with what has become of its inputs."""
    name = Path(made.path).name
    if made.record is None:
        return f"{name}: made elsewhere, {rows_of(made)}"
    r = made.record
    settings = [f"{k} {value_of(v)}" for k, v in r["parameters"].items() if v not in ("", None, [], {})]
    others = [f"{i.name} {i.state}" for i in made.inputs if i.state not in (UNCHANGED, THERE)]
    imported, caveat = (r["notes"].get(n) for n in ("imported", "caveat"))
    parts = [
        f"{r['stage']} with {', '.join(settings) or 'no settings'}",
        f"seed {r.get('seed', '?')}, adcli {r.get('version', '?')}",
        rows_of(made) + (f", {made.errors} failed" if made.errors else ""),
        *([] if made.complete else ["not complete"]),
        *others,
        *([f"imported from {imported}"] if imported else []),
        *([str(caveat)] if caveat else []),
    ]
    return f"{name}: {'; '.join(parts)}"


def rows_of(made: Made) -> str:
    """'1 row'; '? rows' where nobody knows."""
    return "1 row" if made.rows == 1 else f"{'?' if made.rows is None else made.rows} rows"


def value_of(value: object) -> str:
    """One setting in a few words; of a dictionary its names where the values are digests."""
    if isinstance(value, dict):
        value = [k if DIGEST.fullmatch(str(v)) else f"{k} {v}" for k, v in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split())
    return shortened(text, LONGEST)


def plain_name(name: object) -> str:
    """A model's directory by its last part, which is its name."""
    text = str(name)
    return Path(text).name or text if text.startswith(("/", "./", "../")) else text


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(values))
