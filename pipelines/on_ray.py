#!/usr/bin/env python3
"""Run the shards of one command as tasks of a running Ray cluster, which tries again what a lost worker or node cost.

    pipelines/on_ray.py --shards 16 --gpus 1 -- caption m.parquet --vlm qwen2-vl --engine vllm --out c.parquet

Nodes share the file system with the project and its environment. Exit codes are those of adcli.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TRIES = 3  # of a shard whose worker, node or command died
WAIT = 300  # s for a shard's lock: the command of a lost worker writes what it has in hand before it lets go


def run_shard(shard: str, command: list[str], folder: str) -> dict:
    """In a worker: the summary of one shard, whose failed rows are tried once more. Raises ChildProcessError where the
    command was killed, which Ray tries again, RuntimeError where it failed."""
    end, again = time.monotonic() + WAIT, True
    while True:
        line = [*command, "--shard", shard, "--json", "--quiet"]
        done = subprocess.run(line, cwd=folder, text=True, capture_output=True, preexec_fn=end_with_this_worker)
        code, said = done.returncode, done.stderr.strip()
        if code == 3 and again:
            again = False
        elif code == 2 and "another process is writing shard" in said and time.monotonic() < end:
            time.sleep(2)
        elif code in (0, 3):
            return json.loads(done.stdout.splitlines()[-1])
        else:
            raise (ChildProcessError if code < 0 else RuntimeError)(f"exit code {code}: {said}")


def end_with_this_worker() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=1, help="of each shard; 0 = none")
    parser.add_argument("--cpus", type=float, default=1, help="of each shard")
    parser.add_argument("command", nargs="+", help="of adcli and its options, after --")
    given = parser.parse_args()
    command = [str(Path(os.environ.get("BIN") or Path(sys.executable).parent).absolute() / "adcli"), *given.command]
    shards = [f"{i}/{given.shards}" for i in range(given.shards)] or parser.error("--shards: at least 1")
    import ray

    ray.init(address="auto", log_to_driver=False)
    lost = {"max_retries": TRIES, "retry_exceptions": [ChildProcessError]}
    task = ray.remote(num_gpus=given.gpus, num_cpus=given.cpus, **lost)(run_shard)
    begun, summaries, failed = time.monotonic(), [], 0
    waiting = {task.remote(shard, command, str(Path.cwd())): shard for shard in shards}
    while waiting:
        (ended,), _ = ray.wait(list(waiting))
        shard = waiting.pop(ended)
        try:
            summaries.append(ray.get(ended))
            said = f"{summaries[-1]['written']} new rows in {summaries[-1]['seconds']:.0f} s"
        except ray.exceptions.RayError as e:
            failed, said = failed + 1, str(e).strip().splitlines()[-1]
        print(f"shard {shard}: {said}; {given.shards - len(waiting)} of {given.shards} shards", flush=True)
    if summaries:
        last = max(summaries, key=lambda s: s["rows"])
        new, tokens = (sum(s[name] for s in summaries) for name in ("written", "tokens"))
        rows = f"{last['rows']} of {last['expected']} rows, {new} new, {last['errors']} failed, {tokens} tokens"
        print(f"{last['out']}: {rows}, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if failed else 3 if any(s["errors"] for s in summaries) else 0)


if __name__ == "__main__":
    main()
