"""Do the tests notice a wrong line? `python -m benchmarks.mutations [NAME ...]` makes one change at a time to a copy of
the tree, runs the test files named for it and prints `caught` or `survived`; exit code 1 when one survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("adcli", "stages", "pipelines", "prompts", "tests", "benchmarks")


class Mutation(NamedTuple):
    file: str
    old: str  # occurs there exactly once
    new: str
    tests: str  # arguments of pytest


ENCODER, SCORE, TRAINING = (
    "tests/text_encoder/test_text_encoder.py",
    "stages/text_encoder/score.py",
    "stages/text_encoder/train.py",
)
VISUALAD = "stages/visualad/train.py"

MUTATIONS = {
    "positive = negative": Mutation(
        TRAINING,
        "[p.text for p in pairs] * 2 + [p.negative for p in pairs]",
        "[p.text for p in pairs] + [p.negative for p in pairs] * 2",
        ENCODER,
    ),
    "Eq. 8: mean -> max": Mutation(
        SCORE, "np.mean(distances)", "np.max(distances)", "tests/text_encoder/test_text_knn.py"
    ),
    "no weight decay": Mutation(TRAINING, "weight_decay=config.weight_decay", "weight_decay=0.0", ENCODER),
    "decoupled weight decay": Mutation(TRAINING, "torch.optim.Adam(", "torch.optim.AdamW(", ENCODER),
    "rest's learning rate 1e-5": Mutation(
        VISUALAD, "SHARE = 0.1", "SHARE = 0.01", "tests/visualad/test_visualad_optimiser.py"
    ),
    "no clipping": Mutation(
        VISUALAD,
        "optimiser.register_step_pre_hook(lambda *_: clip_each(model.tokens))",
        "pass",
        "tests/visualad/test_visualad_optimiser.py",
    ),
    "mask threshold": Mutation(
        "stages/datasets/masks.py", "values >= white / 2", "values >= white / 25", "tests/datasets/test_reading.py"
    ),
    "double blanks stay": Mutation(
        "stages/captions/caption.py",
        're.sub(r"\\s+", " ", text).strip()',
        "text.strip()",
        "tests/captions/test_clean_text.py",
    ),
    "no fsync": Mutation("stages/artifacts/files.py", "os.fsync(f.fileno())", "pass", "tests/artifacts/test_damage.py"),
}


def caught(mutation: Mutation, tree: Path) -> bool:
    """Whether the tests fail on the copy `tree` with this change; the change is taken back.

    Raises:
        SystemExit: the old text is not there exactly once: the list above is out of date.
    """
    file = tree / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file}: {text.count(mutation.old)} times {mutation.old!r}, expected once")
    file.write_text(text.replace(mutation.old, mutation.new))
    try:
        return pytest(mutation, tree) == 1  # 1 = tests failed; others = they did not run
    finally:
        file.write_text(text)


def pytest(mutation: Mutation, tree: Path) -> int:
    """Exit code of the mutation's tests in `tree`: 0, or 1 where one fails.

    Raises:
        SystemExit: they could not be run.
    """
    files = [f for f in mutation.tests.split() if (tree / f).exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1) or not files:
        raise SystemExit(f"{mutation.tests}: did not run ({done.stdout[-500:]}{done.stderr[-500:]})")
    return done.returncode


def main(names: list[str]) -> int:
    """Prints a line per mutation. Returns the exit code."""
    chosen = {n: m for n, m in MUTATIONS.items() if not names or n in names}
    survived = 0
    with tempfile.TemporaryDirectory() as at:
        tree = Path(at)
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name, mutation in chosen.items():
            found = caught(mutation, tree)
            survived += not found
            print(f"{'caught' if found else 'SURVIVED'}  {name}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
