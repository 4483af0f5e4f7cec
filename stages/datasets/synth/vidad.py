"""`adcli data synth vidad`: scenes after VID-AD's Tables 2 and 3, rendered."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np

from stages.artifacts.files import make_folder, write_alone
from stages.artifacts.outputs import claim
from stages.artifacts.tables import TRUTH
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.seeds import row_seed, source_fingerprint
from stages.base.worker_pool import worker_pool
from stages.datasets.config import CONDITIONS, SynthConfig
from stages.datasets.synth.scenarios import ASPECTS, COUNTS, State, sample_state
from stages.datasets.vidad import SCENARIOS, SYNTHETIC_MARK, chosen

NOTE = """These images were rendered by `adcli data synth vidad`. They follow the rules and counts of VID-AD
(Tables 2 and 3), but none of them is a photograph and none belongs to VID-AD. Figures measured on them
are no results on VID-AD.
"""
# Scenes of another version are not up to date. surfaces.py renders other pictures.
RENDERER = tuple(f for f in sorted(Path(__file__).parent.glob("*.py")) if f.name != "surfaces.py")


@dataclass(frozen=True)
class Sample:
    """One logical layout, photographed under every condition. folder: below the condition."""

    scenario: str
    folder: str  # train/normal, test/quantity+type, ...
    number: int
    broken: tuple[str, ...]


def run(config: SynthConfig, options: RunOptions) -> Summary:
    """Render every scenario into its own artifact OUT/truth.parquet/<scenario>; returns the last
    scenario's summary with the sums of all. Raises InputError for unknown names, a size below 64, or pictures
    of others where one is to be."""
    if config.size < 64:
        raise InputError(f"--size {config.size}: too small to show anything; at least 64 px")
    conditions = chosen(config.conditions, tuple(CONDITIONS), "--conditions")
    scenarios = chosen(config.scenarios, SCENARIOS, "--scenarios")
    names = (relative_path(s, c).as_posix() for name in scenarios for s in samples_of(name) for c in conditions)
    claim(config.out, names, SYNTHETIC_MARK, NOTE)
    summaries = [_run_scenario(s, conditions, config, options) for s in scenarios]
    return Summary(
        **asdict(summaries[-1])
        | {
            "out": str(config.out),
            "rows": sum(s.rows for s in summaries),
            "expected": sum(s.expected for s in summaries),
            "written": sum(s.written for s in summaries),
            "seconds": sum(s.seconds for s in summaries),
            "up_to_date": all(s.up_to_date for s in summaries),
        }
    )


def _run_scenario(scenario: str, conditions, config: SynthConfig, options: RunOptions) -> Summary:
    samples = {(s, c): image_id(s, c) for s in samples_of(scenario) for c in conditions}
    spec = Spec(
        "data synth",
        {"scenario": scenario, "conditions": conditions, "size": config.size, "code": source_fingerprint(*RENDERER)},
        {},
        config.seed,
        {"workers": config.workers},
    )
    out = config.out / "truth.parquet" / scenario
    with Artifact(out, TRUTH, spec, [(i,) for i in samples.values()], options) as artifact:
        pending = {key for (key,) in artifact.pending}
        todo: dict[Sample, list[str]] = {}
        for (sample, condition), key in samples.items():
            if key in pending:
                todo.setdefault(sample, []).append(condition)
        jobs = [(s, tuple(c), config.size, config.seed, config.out) for s, c in todo.items()]
        for rows in _in_processes(jobs, config.workers):
            for row in rows:
                artifact.write(row)
    return artifact.summary


def _in_processes(jobs: list, workers: int) -> Iterator[list[dict]]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_render_to_disk, jobs)
        return
    with worker_pool(workers) as pool:
        yield from pool.imap_unordered(_render_to_disk, jobs, chunksize=2)


def samples_of(scenario: str) -> list[Sample]:
    """Every sample of one task, with the counts of Table 3."""
    first, second = ASPECTS[scenario]
    groups = (
        ("train/normal", ()),
        ("test/normal", ()),
        (f"test/{first}", (first,)),
        (f"test/{second}", (second,)),
        (f"test/{first}+{second}", (first, second)),
    )
    return [
        Sample(scenario, folder, number, broken)
        for (folder, broken), count in zip(groups, COUNTS[scenario], strict=True)
        for number in range(count)
    ]


def relative_path(sample: Sample, condition: str) -> Path:
    """fruits/white_bg/test/quantity/007.jpg"""
    return Path(sample.scenario, condition, sample.folder, f"{sample.number:03d}.jpg")


def image_id(sample: Sample, condition: str) -> str:
    """As `data index vidad` will name it."""
    return f"vidad-synthetic/{relative_path(sample, condition).as_posix()}"


def state_of(sample: Sample, seed: int) -> State:
    """The logical state: the same under every condition."""
    return sample_state(sample.scenario, sample.broken, _random(sample, seed, "state"))


def _random(sample: Sample, seed: int, what: str) -> Random:
    return Random(row_seed(seed, sample.scenario, sample.folder, sample.number, what))


def render_sample(sample: Sample, conditions: tuple[str, ...], size: int, seed: int):
    """Yields (condition, (size, size, 3) uint8) of one sample; objects are drawn once."""
    from stages.datasets.synth.camera import photograph
    from stages.datasets.synth.layout import lay_out
    from stages.datasets.synth.render import draw_layer

    state = state_of(sample, seed)
    layout = lay_out(state, _random(sample, seed, "layout"))
    texture = np.random.default_rng(_random(sample, seed, "texture").getrandbits(63))
    layer = draw_layer(state, layout, size, texture)
    for condition in conditions:
        rng = np.random.default_rng(_random(sample, seed, condition).getrandbits(63))
        yield condition, photograph(layer, condition, rng)


def _render_to_disk(job: tuple) -> list[dict]:
    """Write one sample's pictures; returns their truth rows. Runs in a worker process."""
    import cv2

    cv2.setNumThreads(1)
    sample, conditions, size, seed, root = job
    state = json.dumps(asdict(state_of(sample, seed)))
    rows = []
    for condition, rgb in render_sample(sample, conditions, size, seed):
        path = root / relative_path(sample, condition)
        make_folder(path.parent)
        _write_jpeg(rgb, path)
        rows.append(
            {
                "image_id": image_id(sample, condition),
                "scenario": sample.scenario,
                "condition": condition,
                "split": sample.folder.split("/")[0],
                "label": int(bool(sample.broken)),
                "violates": list(sample.broken),
                "state": state,
            }
        )
    return rows


def _write_jpeg(rgb: np.ndarray, path: Path) -> None:
    from PIL import Image

    jpeg = io.BytesIO()
    Image.fromarray(rgb).save(jpeg, "JPEG", quality=90)
    write_alone(path, lambda f: f.write(jpeg.getvalue()))
