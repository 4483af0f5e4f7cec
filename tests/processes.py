"""`python -m adcli` in real processes that do not pay for its imports.

Each test process has one helper that has imported pyarrow and its like, and torch and its like once a test asks for
`models`. A command is forked from it: a process with a pid, working directory, environment and pipes of its own, which
signals end as any other. What libraries read while they are imported (see READ_AT_IMPORT) is as it was in the helper,
and all processes hash alike: tests of such settings, of the start or of what is imported start Python themselves.
"""

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = ("pandas", "pyarrow.parquet", "PIL.Image", "cv2", "typer", "rich.progress", "multiprocessing.pool")
MODELS = (
    "stages.training.prepared",
    "sentence_transformers",
    "peft",
    "trl",
    "transformers.trainer",
    "torch.utils.tensorboard",
    "torch.distributed.fsdp",
    "sklearn.neighbors",
    "matplotlib.pyplot",
)
READ_AT_IMPORT = ("HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "TORCH_HOME", "MPLCONFIGDIR")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Started(subprocess.Popen):
    """subprocess.Popen([python, *program, *arguments], **options), forked from the helper.

    program: `-m` and a module, or a script. models: whether the command uses torch. env: added to this process's
    environment and ENVIRONMENT.
    """

    def __init__(self, *arguments, program=("-m", "adcli"), models=False, env=None, cwd=ROOT, **options):
        environment = os.environ | ENVIRONMENT | (env or {})
        for name in READ_AT_IMPORT:
            assert environment.get(name) == (os.environ | ENVIRONMENT).get(name), f"{name} is read at import"
        self.request = b"m" if models else b"t"
        super().__init__([*map(str, program), *map(str, arguments)], env=environment, cwd=cwd, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startup, flags, shell, *rest):
        into, _, _, out, _, said = rest[:6]  # as Popen names them: p2cread, c2pwrite, errwrite; -1 = inherited
        handles = [own if own >= 0 else usual for usual, own in enumerate((into, out, said))]
        self.line, other = socket.socketpair()
        with other:
            socket.send_fds(helper(), [self.request], [other.fileno(), *handles])
        self._close_pipe_fds(*rest[:6])
        self.line.sendall(json.dumps([args, env, os.fspath(cwd)]).encode() + b"\n")
        self.pid = int.from_bytes(self.line.recv(4), "big")
        assert self.pid, "the helper did not start it"
        self._child_created = True

    def _try_wait(self, wait_flags):
        if wait_flags & os.WNOHANG and not select.select([self.line], [], [], 0)[0]:
            return 0, 0
        return self.pid, int.from_bytes(self.line.recv(4), "big")

    def _internal_poll(self, _deadstate=None, **_):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def adcli(*arguments, text_in: str | None = None, timeout: float = 600, **options) -> subprocess.CompletedProcess:
    """Run a command to its end: returncode, stdout, stderr. options: see Started."""
    given = subprocess.PIPE if text_in is not None else subprocess.DEVNULL
    with Started(
        *arguments, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            out, said = process.communicate(text_in, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)


def called(*arguments) -> subprocess.CompletedProcess:
    """A command in this very process, for what a command says: no start, no signals."""
    from adcli.main import run

    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        code = run(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), said.getvalue())


def together(count: int, port: int, *arguments, nodes: int = 1, **options) -> tuple[int, str]:
    """(highest exit code, what all said on stderr) of a command in `count` processes, as torchrun starts them; nodes:
    as if they were on so many machines."""
    each = count // nodes
    base = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(each), "MASTER_ADDR": "127.0.0.1"}
    processes = [
        Started(
            *arguments,
            models=True,
            stderr=subprocess.PIPE,
            text=True,
            env=base | {"MASTER_PORT": str(port), "RANK": str(n), "LOCAL_RANK": str(n % each)},
            **options,
        )
        for n in range(count)
    ]
    said = [process.communicate()[1] for process in processes]
    return max(abs(process.returncode) for process in processes), "".join(said)


def by_torchrun(nodes: int, port: int, *arguments, each: int = 1) -> tuple[int, str]:
    """(highest exit code, what all said on stderr) of adcli under `nodes` agents of torchrun, as on so many machines
    that meet at `port` of this one; each: processes of every agent."""
    meet = ("--rdzv_backend", "c10d", "--rdzv_id", port, "--rdzv_endpoint", f"127.0.0.1:{port}")
    agent = ("-m", "torch.distributed.run", "--nnodes", nodes, "--nproc_per_node", each, *meet, "-m", "adcli")
    command, env = list(map(str, (sys.executable, *agent, *arguments))), os.environ | ENVIRONMENT
    agents = [subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) for _ in range(nodes)]
    said = [agent.communicate()[1] for agent in agents]
    return max(abs(agent.returncode) for agent in agents), "".join(said)


@cache
def helper() -> socket.socket:
    """This process's end of the line to the helper."""
    ours, theirs = socket.socketpair()
    with theirs:
        handle = theirs.fileno()
        program = [sys.executable, "-m", "tests.processes", str(handle)]
        process = subprocess.Popen(program, pass_fds=[handle], cwd=ROOT, env=os.environ | ENVIRONMENT)

    starter = os.getpid()

    def end():
        if os.getpid() == starter:  # not in a process that a test forked
            ours.close()
            process.wait()

    atexit.register(end)
    return ours


# -- in the helper


def next_program(line: socket.socket) -> list[str]:
    """In the helper: fork what is asked for; returns, in the forked process alone, its program and arguments."""
    for name in TABLES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would copy every page
    running: dict[int, tuple[int, socket.socket]] = {}  # by what tells that it ended
    while True:
        for ended in select.select([line, *running], [], [])[0]:
            if ended is not line:
                child, answer = running.pop(ended)
                os.close(ended)
                with answer, suppress(BrokenPipeError):  # who started it may have gone
                    answer.sendall(os.waitpid(child, 0)[1].to_bytes(4, "big"))
                continue
            asked, handles, _, _ = socket.recv_fds(line, 1, 4)
            if not asked:
                os._exit(0)
            if asked == b"m":
                for name in MODELS:
                    importlib.import_module(name)
                gc.freeze()
            answer = socket.socket(fileno=handles[0])
            with answer.makefile("rb") as lines:
                program, environment, folder = json.loads(lines.readline())
            child = os.fork()
            if child == 0:
                for other in (line, answer, *(o for _, o in running.values())):
                    other.close()
                become(environment, folder, handles[1:])
                return program
            answer.sendall(child.to_bytes(4, "big"))
            running[os.pidfd_open(child)] = child, answer
            for handle in handles[1:]:
                os.close(handle)


def become(environment: dict[str, str], folder: str, handles: list[int]) -> None:
    """Take over stdin, stdout, stderr, the environment and the working directory."""
    for usual, handle in enumerate(handles):
        os.dup2(handle, usual)
        os.close(handle)
    lines = os.isatty(1)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), line_buffering=lines)
    said = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(said, errors="backslashreplace", line_buffering=True)
    set_by_imports = dict(os.environ)
    os.environ.clear()
    os.environ.update(set_by_imports | environment)
    os.chdir(folder)
    sys.path[0] = folder


def run(program: list[str]) -> None:
    """As `python *program` would, but for the interpreter's last step, freeing every object: seconds of page faults in
    a forked process."""
    try:
        if program[0] == "-m":
            sys.argv = program[1:]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = program
            sys.path[0] = str(Path(program[0]).resolve().parent)
            runpy.run_path(program[0], run_name="__main__")
        code = 0
    except SystemExit as e:
        if not isinstance(e.code, int | None):
            raise
        code = e.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run(next_program(socket.socket(fileno=int(sys.argv[1]))))
