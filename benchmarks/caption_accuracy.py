"""How often `scene` says what is true: captions against truth.parquet, per condition and attribute.

    python -m benchmarks.caption_accuracy CAPTIONS TRUTH

`whole` = the caption is word for word the one that the logical state gives; the attribute columns count
the state's own words of that kind that stand in the caption at the same place.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, TRUTH
from stages.base.prompts import load_prompt
from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.vlm.scene.describe import vocabulary_order
from stages.vlm.scene.form import NUMBERS, Form, counted, parse_form

KINDS = {
    "count": set(NUMBERS) | {"empty"},
    "length": {"long", "short", "longer", "shorter", "similar"},
    "colour": {"red", "blue", "green", "yellow", "black", "white", "orange"},
    "relation": {"matches", "contradicts", "left", "right", "top", "middle", "bottom", "square", "round"},
}


def truth_caption(state: dict, form: Form) -> str:
    """The caption that a perfect captioner gives for a logical state, in the prompt's form."""
    things = state["things"]
    names = [tuple(t["kind" if a == "type" else a] for a in form.attributes) for t in things]
    order = vocabulary_order(form)
    noun_last = form.attributes[-1] == "type"
    if form.label:
        rope, word = things[0], state["label"]
        relation = "matches" if rope["colour"] == word else "contradicts"
        length = {"similar": "similar to", "longer": "longer than", "shorter": "shorter than"}
        return f"{rope['colour']} rope {relation} label {word}, rope {length[rope['length']]} stick."
    if form.compared:
        a, b = sorted(zip([t["length"] != "long" for t in things], names, strict=True))
        if a[0] == b[0]:
            first, second = sorted(names, key=order.index)
            return f"{' '.join(first)} similar to {' '.join(second)}."
        return f"{' '.join(a[1])} longer than {' '.join(b[1])}."
    if form.regions:
        said = []
        for region in form.regions:
            inside = [
                n
                for n, t in zip(names, things, strict=True)
                if t["place"] and region in (t["place"], f"{t['place']} bin", f"{t['place']} dish")
            ]
            text = ", ".join(map(" ".join, inside)) if form.ordered else counted(inside, order, noun_last)
            said.append(f"{region}: {text or 'empty'}")
        return ". ".join(said) + "."
    return (", ".join(map(" ".join, names)) if form.ordered else counted(names, order, noun_last)) + "."


def compare(said: str, true: str) -> dict[str, tuple[int, int]]:
    """Attribute kind -> (right, all) words of `true`, place by place; `type` = every other word."""
    a, b = said.strip(".").split(), true.strip(".").split()
    result: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for i, word in enumerate(b):
        word = word.strip(".,:")
        kind = next((k for k, words in KINDS.items() if word in words), "type")
        result[kind][1] += 1
        result[kind][0] += i < len(a) and a[i].strip(".,:") == word
    result["whole"] = [int(said == true), 1]
    return {k: (v[0], v[1]) for k, v in result.items()}


def main(captions: Path, truth: Path) -> None:
    """Print one row per capture condition and one per scenario."""
    said = {r["image_id"]: r["text"] or "" for r in read_table(captions, CAPTIONS, partial=True).to_pylist()}
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for r in read_table(truth, TRUTH).to_pylist():
        if r["image_id"] not in said:
            continue
        form = parse_form(load_prompt(f"vidad/{r['scenario']}").text)
        result = compare(said[r["image_id"]], truth_caption(json.loads(r["state"]), form))
        for group in (r["condition"], r["scenario"], "all"):
            for kind, (right, n) in result.items():
                rows[group][kind][0] += right
                rows[group][kind][1] += n
    columns = ["whole", *KINDS, "type"]
    print("caption accuracy, % ".ljust(20) + "".join(c.rjust(10) for c in columns) + "    wrong of")
    for group in [g for g in (*CONDITIONS, *SCENARIOS, "all") if g in rows]:
        kinds = rows[group]
        right, n = kinds["whole"]
        print(
            group.ljust(20)
            + "".join((f"{100 * kinds[c][0] / kinds[c][1]:.1f}" if kinds[c][1] else "-").rjust(10) for c in columns)
            + f"{n - right:9d} {n}"
        )
    share = 100 * rows["all"]["whole"][0] / max(rows["all"]["whole"][1], 1)
    print(f"whole captions right: {share:.1f} %   target >= 90 %   {'reached' if share >= 90 else 'NOT REACHED'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
