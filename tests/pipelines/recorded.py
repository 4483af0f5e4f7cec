"""Runs of the scripts of pipelines/ with commands that only write down what they are asked."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.name for p in (ROOT / "pipelines").glob("*.sh") if p.name != "common.sh")
SLURM = sorted(f"slurm/{p.name}" for p in (ROOT / "pipelines/slurm").glob("*.sh"))
BOTH = {"MVTEC_ROOT": "/my data/mvtec ad", "VISA_ROOT": "/my data/Vis A"}
MANIFESTS = {"VMAD_ON": "a b/on.parquet", "VMAD_TO": "a b/to.parquet"}
ASKED = {"TEST_MANIFEST": "mpdd.parquet", "TEST_QUESTIONS": "questions.parquet"}
NEEDED = {
    "visualad.sh": BOTH,
    "vmad_ablations.sh": MANIFESTS,
    "vmad.sh": {"RIAD_ROOT": "/my data/RIAD"},
    "sage.sh": BOTH | ASKED | {"JUDGE": "words"},
    "sage_ablations.sh": ASKED | {"JUDGE": "words"},
}
# Writes down its arguments, one command a line; fails as $FAIL_WITH says when its arguments hold $FAIL_ON.
STUB = r"""#!/usr/bin/env bash
printf -v line '%s\x1f' "$@"
printf '%s\n' "$line" >> "$LOG"
if [ "$1" = train-encoder ]; then echo "${OMP_NUM_THREADS-unset}" >> "$LOG.threads"; fi
if [ -n "${WAIT_ON-}" ] && [[ " $* " == *" $WAIT_ON "* ]]; then echo $$ >> "$LOG.pids"; exec sleep 600; fi
if [ -n "${FAIL_ON-}" ] && [[ " $* " == *" $FAIL_ON "* ]]; then exit "$FAIL_WITH"; fi
"""


# Of Slurm: jobs count from 1, those whose name holds $QUEUED are in the queue.
SBATCH = """#!/usr/bin/env bash
printf -v line '%s\\x1f' sbatch "$@"
printf '%s\\n' "$line" >> "$LOG"
grep -c ^sbatch "$LOG"
"""
SQUEUE = """#!/usr/bin/env bash
if [ -n "${QUEUED-}" ] && [[ "$*" == *"--name=$QUEUED-"* ]]; then echo 77; fi
"""


class Run:
    """A run of a script in a copy of the project's pipelines, with commands that only write down their arguments."""

    def __init__(self, folder: Path, script: str, **settings: str) -> None:
        shutil.copytree(ROOT / "pipelines", folder / "pipelines", dirs_exist_ok=True)
        (folder / "bin dir").mkdir(exist_ok=True)
        for name in ("adcli", "python"):
            (folder / "bin dir" / name).write_text(STUB.replace('"$@"', f'{name} "$@"', 1))
            (folder / "bin dir" / name).chmod(0o755)
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (folder / "bin dir" / name).write_text(text)
            (folder / "bin dir" / name).chmod(0o755)
        (folder / "my tiles").mkdir(exist_ok=True)
        self.log = folder / "log"
        self.log.unlink(missing_ok=True)
        environment = {
            "PATH": f"{folder}/bin dir:{os.environ['PATH']}",
            "BIN": str(folder / "bin dir"),
            "LOG": str(self.log),
            "TILES": "my tiles",
            **settings,
        }
        self.process = subprocess.Popen(
            ["bash", *f"pipelines/{script}".split()],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def done(self, timeout: float = 120) -> "Run":
        self.output, _ = self.process.communicate(timeout=timeout)
        self.code = self.process.returncode
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.commands = [line.split("\x1f")[:-1] for line in lines]
        return self

    def of(self, *words: str) -> list[list[str]]:
        """The commands that hold these words in this order, one after the other."""
        return [c for c in self.commands if any(tuple(c[i : i + len(words)]) == words for i in range(len(c)))]


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]
