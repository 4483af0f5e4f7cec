"""Figures of SAGE's paper from our own answers, as PNG bytes: groups (5), fact sentences and patches (7)."""

from dataclasses import dataclass

from stages.base.plots import as_png, pyplot
from stages.report.figures import ANOMALOUS, NORMAL, UNKNOWN, shown
from stages.report.sage import split_name
from stages.results.answers import ALL

SHOTS = {"0": ("zero-shot", NORMAL), "1": ("one-shot", ANOMALOUS), "": ("", UNKNOWN)}
AXES = {"sentences": "fact sentences per image, at most", "patches": "distinct patches (K of Eq. 1)"}
HEIGHTS = {"accuracy": "accuracy, %", "mle": "Score, 1 to 5"}


def group_accuracy(rows: list[dict]) -> bytes | None:
    """Figure 5: Acc-G of every method with its interval, a panel per data set, the two settings of a method side by
    side. rows: of METRICS. None where no two runs have groups."""
    found = [r for r in rows if (r["category"], r["metric"]) == (ALL, "acc_g") and r["value"] is not None]
    if len(found) < 2:
        return None
    plt = pyplot()
    places = list(dict.fromkeys((r["dataset"], r["condition"]) for r in found))
    names = {
        p: list(dict.fromkeys(split_name(r["method"])[0] for r in found if (r["dataset"], r["condition"]) == p))
        for p in places
    }
    figure, axes = plt.subplots(
        len(places),
        1,
        figsize=(7, sum(0.5 * len(n) + 1 for n in names.values())),
        squeeze=False,
        layout="constrained",
        height_ratios=[len(n) + 1 for n in names.values()],
    )
    for ax, place in zip(axes[:, 0], places, strict=True):
        for r in (r for r in found if (r["dataset"], r["condition"]) == place):
            name, shots = split_name(r["method"])
            y, value = names[place].index(name) + {"0": -0.19, "1": 0.19, "": 0}[shots], 100 * r["value"]
            ax.barh(y, value, 0.36, color=SHOTS[shots][1], label=SHOTS[shots][0])
            end = 100 * (r["ci_high"] if r["ci_high"] is not None else r["value"])
            if r["ci_low"] is not None:
                ax.plot([100 * r["ci_low"], end], [y, y], color="black", lw=1)
            ax.text(end, y, f"  {value:.1f}", va="center", fontsize=7)  # a bar of 0 is a figure too
        ax.set_yticks(range(len(names[place])), [shown(n) for n in names[place]])
        ax.set(
            title=shown(" · ".join(filter(None, place))),
            xlabel="groups with all questions right, %",
            xlim=(0, max(5, ax.get_xlim()[1])),
        )
        ax.set_ylim(len(names[place]) - 0.4, -0.6)
    handles = {h.get_label(): h for ax in axes[:, 0] for h in ax.containers}
    if known := [handles[name] for name, _ in SHOTS.values() if name in handles and name]:
        figure.legend(handles=known, loc="outside right upper", frameon=False)
    return as_png(figure)


@dataclass(frozen=True)
class Curve:
    """points: (setting, value), in order of the setting."""

    axis: str
    metric: str
    name: str
    points: tuple[tuple[int, float], ...]


def curves_by_setting(rows: list[dict], models: dict[str, dict]) -> list[Curve]:
    """Figure 7: accuracy and Score by fact sentences and by patches; a line joins runs of models that differ in that
    setting alone, zero- and one-shot apart. rows: of METRICS; models: method -> what its model is made of."""
    found: dict[tuple, list] = {}
    for r in rows:
        model = models.get(r["method"])
        if model is None or r["category"] != ALL or r["metric"] not in HEIGHTS or r["value"] is None:
            continue
        scale = 100 if r["metric"] == "accuracy" else 1
        for axis in AXES:
            rest = tuple(sorted((k, str(v)) for k, v in model.items() if k != axis))
            key = (axis, r["metric"], r["dataset"], r["condition"], rest)
            found.setdefault(key, []).append((int(model[axis]), scale * r["value"]))
    lines = []
    for (axis, metric, dataset, condition, rest), points in found.items():
        if len({x for x, _ in points}) > 1:
            had = dict(rest)
            (other,) = (f"{had[a] if had[a] != '0' else 'all'} {a}" for a in AXES if a != axis)
            name = " · ".join(filter(None, (dataset, condition, f"sage-{had['stage']}/{had['shots']}-shot", other)))
            lines.append(Curve(axis, metric, name, tuple(sorted(points, key=lambda p: (p[0] or 10**9, p[1])))))
    return lines


def by_setting(curves: list[Curve]) -> bytes | None:
    """The curves, settings evenly spaced; 0 sentences stand for all there are. None where there is none."""
    if not curves:
        return None
    plt = pyplot()
    columns, metrics = (list(dict.fromkeys(getattr(c, n) for c in curves)) for n in ("axis", "metric"))
    figure, axes = plt.subplots(
        len(metrics),
        len(columns),
        figsize=(4.6 * len(columns), 2.8 * len(metrics)),
        squeeze=False,
        layout="constrained",
    )
    for column, axis in zip(axes.T, columns, strict=True):
        places = sorted({x for c in curves if c.axis == axis for x, _ in c.points}, key=lambda x: x or 10**9)
        for ax, metric in zip(column, metrics, strict=True):
            found = [c for c in curves if (c.axis, c.metric) == (axis, metric)]
            if not found:
                ax.axis("off")
                continue
            for c in found:
                x, y = zip(*((places.index(setting), value) for setting, value in c.points), strict=True)
                ax.plot(x, y, "o-", ms=4, lw=1.2, label=shown(c.name))
            ax.set_xticks(range(len(places)), [str(x or "all") for x in places])
            ax.set(xlabel=AXES[axis], ylabel=HEIGHTS[metric])
            ax.legend(fontsize=6.5, frameon=False)
    return as_png(figure)
