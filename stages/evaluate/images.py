"""Scores -> metrics, tables and a report. Runs without torch; nothing here depends on the method."""

import shlex
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from stages.artifacts.checks import check_places
from stages.artifacts.digests import Files
from stages.artifacts.outputs import require_free
from stages.artifacts.reader import content_key, fingerprint, read_provenance, read_table
from stages.artifacts.tables import MAPS, METRICS, SCORES, THRESHOLDS, Table
from stages.artifacts.writer import Artifact, Spec, Summary, open_all
from stages.base.config import RunOptions, check_numbers, named_paths
from stages.base.errors import InputError
from stages.base.progress import Progress
from stages.datasets.entries import many
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, Task, read_manifest
from stages.evaluate.config import EvaluateConfig
from stages.report import grid
from stages.report.checklist import Answers, key_of, read_checklist, write_checklist
from stages.report.figures import curves
from stages.report.heatmaps import (
    colour_scales,
    example_panels,
    named_heatmaps,
    overlays,
    require_no_input,
    write_heatmaps,
)
from stages.report.html import Results, write_report
from stages.report.lvlm_labels import contradicted, distributions
from stages.report.lvlm_mask_area import Bin, area_bins, area_figure, area_table
from stages.report.made import HowMade, how_made
from stages.report.page import figures
from stages.report.ranking import outcome, shown, write_ranking
from stages.report.tables import all_tables
from stages.report.training_texts import training_texts
from stages.report.vidad import sensitivity
from stages.report.vidad_captions import TaskCaptions, captions_of, table6
from stages.report.visualad import made_of
from stages.report.visualad_ablations import figure4
from stages.results.metric_rows import metric_rows, pixel_rows, threshold_rows
from stages.results.pixels import (
    NO_MASK,
    PixelOptions,
    PixelResult,
    PixelTask,
    evaluate_pixels,
    options_checked,
    pixel_tasks,
)
from stages.results.scores import TaskScores, collect, listed, read_scores


def run(config: EvaluateConfig, options: RunOptions) -> Summary:
    """Write metrics; print the table of tasks; optionally write tables and the report.

    Raises:
        InputError: no scored image is in the manifest, no score is a number; places, numbers or tables that cannot be,
            all before any work.
    """
    check_numbers(config)
    check_places(config)
    pixel = options_checked(
        PixelOptions(
            config.maps or Path(), config.pro_limit, config.pixel_size, config.pro_200, config.resamples, config.seed
        )
    )
    manifest = read_manifest(config.manifest, config.root, config.partial)
    table = read_table(config.scores, SCORES, config.partial)
    scored = read_scores(table, config.scores)
    tasks = [t for t in collect(scored, manifest.images, config.scores) if not (config.partial and t.unscored)]
    if not tasks:
        raise InputError(f"{config.scores}: no task is finished yet")
    with_maps = _tasks_with_maps(config, manifest.images, tasks)
    rows = metric_rows(tasks, config.resamples, config.seed)
    if not (config.maps or any(t.test or t.train or t.held_out or t.decided for t in tasks)):
        why = next((r["reason"] for r in rows if r["reason"]), "every row failed")
        raise InputError(f"{config.scores}: nothing to evaluate, no image has a score or a decision: {why}")
    inputs = {"scores": fingerprint(table, SCORES), "manifest": manifest.fingerprint}
    parameters: dict = {"resamples": config.resamples, "partial": config.partial}
    pixels: list[PixelResult] = []
    files = Files("", "")
    if config.maps:
        masked = {i.image_id: i for task in with_maps for i in task.images}
        files = look_at(config.out, options.quiet, masks=masked.values())
        pixels = _pixels(with_maps, pixel, config, options)
        rows += pixel_rows(pixels)
        inputs |= {"maps": content_key(config.maps, MAPS), "mask files": files.masks}
        parameters |= {"pro_limit": config.pro_limit, "pixel_size": config.pixel_size, "pro_200": config.pro_200}
        parameters |= {"masks": "bilinear, above one half"} if config.pixel_size else {}
    spec = Spec("evaluate", parameters, inputs, config.seed, paths=named_paths(config))
    artifact = _artifact(config.out, METRICS, spec, rows, options)
    limits = threshold_rows(tasks, pixels) if config.thresholds else []
    beside = []
    if config.thresholds:
        of_limits = replace(spec, stage="evaluate --thresholds")
        beside.append(_artifact(config.thresholds, THRESHOLDS, of_limits, limits, replace(options, quiet=True)))
    # What can be refused is refused before anything is written.
    pages = _pages(tasks, rows, pixels, manifest.images, config)
    with ExitStack() as stack:
        open_all([artifact, *beside], stack)
        files.keep(config.out)
        artifact.write_all(rows)
        for table in beside:
            table.write_all(limits)
        known = {image.image_id for image in manifest.images}
        if strangers := sum(row["image_id"] not in known for row in scored):
            artifact.progress.say(f"{strangers} scored images are not in the manifest and are left out")
        if named := [s.image.image_id for t in tasks for s in t.rows if s.no_number]:
            artifact.progress.say(f"{config.scores}: {listed(named)}: `score` is NaN or infinite; counted as failed")
        for line in pages.made.cautions:
            artifact.progress.say(line)
        if config.checklist:
            artifact.progress.say(_check(config.checklist, pages))
    _publish(tasks, rows, pixels, pages, {i.task for i in manifest.images}, config, options)
    return artifact.summary


def _artifact(out: Path, table: Table, spec: Spec, rows: list[dict], options: RunOptions) -> Artifact:
    keys = [tuple(row[k] for k in table.key) for row in rows]
    return Artifact(out, table, spec, keys, options, flush_rows=100_000)


def _tasks_with_maps(config: EvaluateConfig, images: tuple[Image, ...], scored: list[TaskScores]) -> list[PixelTask]:
    """Raises InputError where a heat map would be written over an image."""
    tasks = pixel_tasks(images, config.maps) if config.maps else []
    if config.heatmaps:
        if not config.maps:
            raise InputError(f"--heatmaps {config.heatmaps}: pictures of what --maps holds; give that, too")
        require_no_input(tasks, scored, config.heatmaps)
    return tasks


def _pixels(
    tasks: list[PixelTask], pixel: PixelOptions, config: EvaluateConfig, options: RunOptions
) -> list[PixelResult]:
    progress, results = Progress("pixel metrics, categories", len(tasks), options.quiet), []
    try:
        for result in evaluate_pixels(tasks, pixel, config.workers):
            results.append(result)
            progress.advance(failed=any(v.value is None for v in result.values.values()))
    finally:
        progress.stop()
    lines = list(dict.fromkeys(line for r in results for line in r.task.left_out))  # once, of however many methods
    if maskless := [line.removesuffix(f": {NO_MASK}") for line in lines if line.endswith(f": {NO_MASK}")]:
        which = f"{many(maskless, 'anomalous image')} without a mask, as {maskless[0]}"
        without = "no pixel metrics" if all(v.value is None for r in results for v in r.values.values()) else ""
        progress.say(f"{without or 'left out of the pixel metrics'}: {which}")
    lines = [line for line in lines if not line.endswith(f": {NO_MASK}")]
    for line in lines[:5]:
        progress.say(f"left out of the pixel metrics: {line}")
    if len(lines) > 5:
        progress.say(f"and {len(lines) - 5} more (column `reason` of the metrics counts them per category)")
    return results


@dataclass(frozen=True)
class _Pages:
    """What is published. grids: the tables; more: those that stand in the folder --tables alone; pictures: PNG or None
    of its figures; bins: of mask areas; answers: of the checklist."""

    provenance: list[dict]
    made: HowMade
    grids: list[grid.Grid]
    more: list[grid.Grid]
    pictures: dict[str, bytes | None]
    bins: list[Bin]
    captions: list[TaskCaptions]
    answers: Answers


def _pages(
    tasks: list[TaskScores],
    rows: list[dict],
    pixels: list[PixelResult],
    images: tuple[Image, ...],
    config: EvaluateConfig,
) -> _Pages:
    """Raises InputError where tables or heat maps would take the place of files of others."""
    provenance = read_provenance(config.scores)
    made = how_made([config.scores], {t.dataset for t in tasks})
    grids = all_tables(tasks, rows, config.resamples, config.seed, pixels, provenance, made.embedded)
    captions = captions_of(tasks)
    answers = _answers(captions, config.checklist)
    grids += [table6(captions, answers)] if captions else []
    grids += training_texts(tasks, images, made.inputs)
    more: list[grid.Grid] = []
    pictures: dict[str, bytes | None] = {}
    bins = area_bins(tasks, rows) if config.tables or config.report else []
    if config.tables:
        more = [*area_table(bins), *contradicted(tasks), *made.tables]
        pictures = {"figure5": sensitivity(rows), "figure6": distributions(tasks), "figure7": area_figure(bins)}
        pictures["visualad-figure4"] = figure4(rows, made_of(provenance))
        pictures["curves"] = curves(pixels, config.pro_limit)
        grid.require_free([*grids, *more], config.tables, pictures)
    if config.heatmaps:
        require_free(config.heatmaps, named_heatmaps(pixels, tasks).values())
    return _Pages(provenance, made, grids, more, pictures, bins, captions, answers)


def _answers(captions: list[TaskCaptions], checklist: Path | None) -> Answers:
    """Raises InputError where there is no caption to check, or as `read_checklist` does."""
    if checklist and not captions:
        raise InputError(f"--checklist {checklist}: these scores are not about captions of VID-AD; leave it out")
    return read_checklist(checklist) if checklist and checklist.exists() else {}


def _check(checklist: Path, pages: _Pages) -> str:
    """Write the checklist where there is none; says how far it is filled."""
    wanted = dict.fromkeys(line for task in pages.captions for line in task.chosen)
    if not checklist.exists():
        write_checklist(checklist, wanted)
        return f"{checklist}: {many(wanted, 'caption')} to check; fill the column `right`, then run this again"
    current = {key_of(*line) for task in pages.captions for line in task.normals}
    said = f"{checklist}: {sum(a is not None for a in pages.answers.values())} of {len(pages.answers)} answered"
    gone = len(pages.answers.keys() - current)
    return said + (f"; {gone} are of other captions than these scores' and do not count" if gone else "")


def _publish(
    tasks: list[TaskScores],
    rows: list[dict],
    pixels: list[PixelResult],
    pages: _Pages,
    indexed: Collection[Task],
    config: EvaluateConfig,
    options: RunOptions,
) -> None:
    printed = [grid.as_text(g) for g in pages.grids if g.printed]
    if printed and not (options.quiet or options.json):
        print("\n\n".join(printed))
    scales = cache(partial(colour_scales, tasks, config.maps or Path()))  # all maps are read: once, if at all
    if config.maps and config.heatmaps:
        draw = partial(overlays, config.maps, scales)
        write_heatmaps(pixels, tasks, config.maps, draw, config.heatmaps, options.quiet)
    if config.ranking:
        write_ranking(tasks, config.ranking)
    if config.tables:
        grid.write([*pages.grids, *pages.more], config.tables, pages.pictures)
    if config.report:
        drawn = {
            "figure5": figures.sensitivity(rows),
            "figure7": figures.area(pages.bins),
            "curves": figures.curves(pixels, config.pro_limit),
        }
        unlabelled = all(s.image.label is None for t in tasks for s in t.test) and any(t.good for t in tasks)
        results = Results(
            tasks,
            rows,
            pages.grids,
            drawn,
            example_panels(pixels, config.maps),
            pages.provenance,
            pages.made,
            indexed,
            config.maps,
            scales,
            outcome(tasks, config.resamples, config.seed) if unlabelled else None,
            again_with_a_vlm(config),
        )
        write_report(config.report, results, options.quiet)


def again_with_a_vlm(config: EvaluateConfig) -> str:
    """The command that inspects the same two folders with a vision-language model; empty for other data."""
    paths = next((record.get("paths", {}) for record in read_provenance(config.manifest)), {})
    if not {"good", "test"} <= paths.keys() or config.report is None:
        return ""
    good, test = shown(Path(paths["good"])), shown(Path(paths["test"]))
    out = shown(config.report.parent) + "-lvlm"
    words = ("adcli", "inspect", "--good", good, "--test", test, "--method", "lvlm", "--vlm", "qwen2-vl", "--out", out)
    return shlex.join(words)
