"""Scores of another program, CSV or JSON lines -> a table of scores, and of maps, about the images of a manifest."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.artifacts.digests import read_state
from stages.artifacts.tables import MAPS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary, open_all
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.read_json import read_json_lines
from stages.base.texts import read_text, separator_of
from stages.datasets.entries import first, many
from stages.datasets.manifest import Manifest, read_manifest
from stages.questions.places import places_of, resolve
from stages.results.config import ImportScoresConfig
from stages.results.map_files import as_row

CSV_ENDINGS, JSON_ENDINGS = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
MAP_ROWS = 64  # of a part


@dataclass(frozen=True)
class Line:
    """One line of the file. image, map: as they are written; number: from 1; error: why it has no score."""

    number: int
    image: str
    score: float | None
    map: str | None
    error: str | None


def run(config: ImportScoresConfig, options: RunOptions) -> Summary:
    """Import every line. One whose image the manifest lacks, or has twice, or whose score is no number, is a row with
    `error`, and so is a map that cannot be read; nothing gets a score that has none in the file.

    Raises:
        InputError: no such file, another format or no such columns; no line is about an image of the manifest; two
            lines are about one image.
    """
    manifest = read_manifest(config.manifest, config.root)
    lines, has_maps = read_lines(config)
    ids, missing = resolve((line.image for line in lines), places_of(config.manifest, manifest))
    if not ids:
        raise InputError(
            f"{config.source}: none of its {many(lines, 'image')} is in the manifest; {next(iter(missing.values()))}"
        )
    rows = _rows(lines, ids, missing, config)
    if (state := read_state(config.source)) is None:
        raise InputError(f"{config.source}: cannot be read any more")
    files = {i: config.source.parent / line.map for i, (line, _) in rows.items() if line.map} if config.maps else {}
    inputs = {"manifest": manifest.fingerprint, "source": state.digest}
    inputs |= {"map files": _digest_of_all(files.values())} if config.maps else {}
    columns = {n: getattr(config, n) for n in ("image_column", "score_column")}
    columns |= {"map_column": config.map_column} if config.maps else {}
    notes = {"imported": f"{config.source.name}, BLAKE2b {state.digest}"}
    spec = Spec("data import-scores", {"method": config.name} | columns, inputs, 0, notes, named_paths(config))
    keys = [(image_id, config.name) for image_id in rows]
    scores, maps = Artifact(config.out, SCORES, spec, keys, options), None
    if config.maps:
        of_maps, silent = replace(spec, stage="data import-scores --maps"), replace(options, quiet=True)
        maps = Artifact(config.maps, MAPS, of_maps, keys, silent, MAP_ROWS)
    with ExitStack() as stack:
        open_all([a for a in (scores, maps) if a], stack)
        for said in _remarks(config, manifest, ids, missing, has_maps):
            scores.progress.say(said)
        scores.write_all(row for _, row in rows.values())
        if maps:
            maps.write_all(_map_rows(maps.pending, rows, files, missing))
    return _summary(scores.summary, maps.summary if maps else None)


def read_lines(config: ImportScoresConfig) -> tuple[list[Line], bool]:
    """(the lines of the file, whether it has a column of maps). Raises InputError as `run` does."""
    ending = config.source.suffix.lower()
    if ending not in (*CSV_ENDINGS, *JSON_ENDINGS):
        raise InputError(f"{config.source}: expected a name that ends in {', '.join((*CSV_ENDINGS, *JSON_ENDINGS))}")
    read = _csv if ending in CSV_ENDINGS else _json
    found = list(read(config.source))
    if not found:
        raise InputError(f"{config.source}: holds no scores")
    names = dict.fromkeys(name for _, row in found for name in row)
    for option in ("image_column", "score_column", *(("map_column",) if config.maps else ())):
        if (name := getattr(config, option)) not in names:
            flag = f"--{option.replace('_', '-')}"
            raise InputError(f"{config.source}: no column `{name}`; it has {', '.join(names)} (name it by {flag})")
    return [_line(number, row, config) for number, row in found], config.map_column in names


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Separated by commas, semicolons or tabs; the first line has the names."""
    text = read_text(file)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator_of(text), skipinitialspace=True)
    names = [(n or "").strip() for n in reader.fieldnames or ()]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise InputError(f"{file}: the column `{twice}` is there twice; remove one")
    reader.fieldnames = names
    for row in reader:
        if row.get(None):
            raise InputError(
                f"{file}: line {reader.line_num}: more cells than the first line has columns; put cells that hold the"
                " separator in quotes"
            )
        yield reader.line_num, row


def _json(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, value in read_json_lines(file):
        if not isinstance(value, dict):
            raise InputError(f"{file}: line {number}: expected an object with the columns by name")
        yield number, value


def _line(number: int, row: dict[str, Any], config: ImportScoresConfig) -> Line:
    image, score, file = (row.get(n) for n in (config.image_column, config.score_column, config.map_column))
    if not isinstance(image, str) or not image.strip():
        raise InputError(f"{config.source}: line {number}: names no image in the column `{config.image_column}`")
    value, error = _number(score)
    return Line(number, image.strip(), value, file.strip() or None if isinstance(file, str) else None, error)


def _number(score: object) -> tuple[float | None, str | None]:
    """(the score, None) or (None, why there is none)."""
    if score is None or score == "":
        return None, "no score in the file"
    try:
        value = float(score) if isinstance(score, str | int | float) and not isinstance(score, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    return (value, None) if math.isfinite(value) else (None, f"the score {score!r} is no finite number")


def _rows(
    lines: list[Line], ids: dict[str, str], missing: dict[str, str], config: ImportScoresConfig
) -> dict[str, tuple[Line, dict]]:
    """image_id, or the image as it is written where the manifest has none -> its line and its row of SCORES."""
    rows: dict[str, tuple[Line, dict]] = {}
    for line in lines:
        image_id = ids.get(line.image, line.image)
        if image_id in rows:
            raise InputError(
                f"{config.source}: lines {rows[image_id][0].number} and {line.number} are about one image, {image_id};"
                " remove one"
            )
        error = missing.get(line.image) or line.error
        row = {"image_id": image_id, "method": config.name, "score": None if error else line.score, "error": error}
        rows[image_id] = line, row | ({"retry": False} if error else {})
    return rows


def _map_rows(
    pending: list[tuple], rows: dict[str, tuple[Line, dict]], files: dict[str, Path], missing: dict[str, str]
) -> Iterator[dict]:
    for key in pending:
        row = dict(zip(MAPS.key, key, strict=True))
        line, _ = rows[key[0]]
        try:
            if line.image in missing:
                raise ImageError(missing[line.image])
            if key[0] not in files:
                raise ImageError(f"{line.image}: no map in the file")
            yield as_row(key, files[key[0]])
        except ImageError as e:
            yield row | {"error": str(e)}


def _remarks(
    config: ImportScoresConfig, manifest: Manifest, ids: dict[str, str], missing: dict[str, str], has_maps: bool
) -> Iterator[str]:
    """What did not match, in both directions."""
    if missing:
        yield f"{config.source}: {many(missing, 'image')} not found in the manifest: {first(list(missing))}"
    scored = set(ids.values())
    if left := [i.image_id for i in manifest.images if i.split == "test" and i.image_id not in scored]:
        yield f"{many(left, 'test image')} of the manifest without a line in {config.source}: {first(left)}"
    if has_maps and not config.maps:
        yield f"{config.source}: the column `{config.map_column}` is not read; --maps FOLDER imports the maps"


def _digest_of_all(files: Iterable[Path]) -> str:
    """Of their contents in this order; one that cannot be read counts as such."""
    digest = hashlib.blake2b(digest_size=16)
    for state in map(read_state, files):
        digest.update(state.digest.encode() if state else b"-")
    return digest.hexdigest()


def _summary(scores: Summary, maps: Summary | None) -> Summary:
    """Of both tables: a map that failed is a failure of the import."""
    if maps is None:
        return scores
    told = tuple(dict.fromkeys((*scores.first_errors, *maps.first_errors)))[:5]
    return replace(
        scores,
        complete=scores.complete and maps.complete,
        up_to_date=scores.up_to_date and maps.up_to_date,
        errors=max(scores.errors, maps.errors),
        first_errors=told,
    )
