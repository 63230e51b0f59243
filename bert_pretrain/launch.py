"""Starts one process a card under mpirun or horovodrun, hands signals on, restarts after a crash.

scripts/run_multi_card_FPS.sh calls it. Standard library only, because it runs before TensorFlow is wanted.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple, Optional

TRAINER = "bert_pretrain.run"
BAD_INPUT = 2  # the exit code for which another try is pointless

# What ranks on other machines need of this machine's environment; a local rank inherits all of it.
_FORWARDED = re.compile(r"PATH|LD_LIBRARY_PATH|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES|(HOROVOD|NCCL|TF)_\w+")


class Machine(NamedTuple):
    """What the number of ranks and their threads depend on."""

    num_cores: int
    num_cards: int
    is_root: bool


class Job(NamedTuple):
    """A command that starts all ranks, and the environment variables that it adds."""

    command: list[str]
    environ: Mapping[str, str]


def this_machine() -> Machine:
    """The cores that this process may use and the cards of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(num_cores=cores, num_cards=_num_cards(), is_root=os.geteuid() == 0)


def _num_cards() -> int:
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())
    return len([path for path in Path("/dev").glob("iluvatar*") if re.fullmatch(r"iluvatar\d+", path.name)])


def num_ranks(environ: Mapping[str, str], machine: Machine, host_slots: Optional[Mapping[str, int]] = None) -> int:
    """NP, else the hostfile's slots, IX_NUM_CUDA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, the cards, or 2 on CPUs."""
    if environ.get("NP"):
        return _positive("NP", environ["NP"])
    if host_slots:
        return sum(host_slots.values())
    if environ.get("IX_NUM_CUDA_VISIBLE_DEVICES"):
        return _positive("IX_NUM_CUDA_VISIBLE_DEVICES", environ["IX_NUM_CUDA_VISIBLE_DEVICES"])
    num_cards = machine.num_cards
    if "CUDA_VISIBLE_DEVICES" in environ:
        # CUDA reads up to the first entry that is no device; -1 and an empty list hide all cards.
        entries = [entry.strip() for entry in environ["CUDA_VISIBLE_DEVICES"].split(",")]
        num_cards = next((i for i, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")), len(entries))
    return num_cards or 2


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}={text} is no number of processes; give a whole number of at least 1")
    return int(text)


def read_hostfile(path: str, default_slots: int) -> dict[str, int]:
    """Host -> processes, from lines 'name slots=N' as Open MPI and Horovod read them; '#' starts a comment."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"HOSTFILE={path} cannot be read: {error.strerror}") from None
    slots: dict[str, int] = {}
    for line in lines:
        words = line.partition("#")[0].split()
        if words:
            given = [word.partition("=")[2] for word in words[1:] if word.startswith("slots=")]
            slots[words[0]] = _positive(f"HOSTFILE={path}: slots", given[0]) if given else default_slots
    if not slots:
        raise ValueError(f"HOSTFILE={path} names no host; write one line 'name slots=8' for each")
    return slots


def job(flags: Sequence[str], environ: Mapping[str, str], machine: Machine) -> Job:
    """The job for the trainer's flags. ValueError for an environment variable that cannot be."""
    hostfile = environ.get("HOSTFILE")
    default_slots = machine.num_cards or machine.num_cores
    host_slots = read_hostfile(hostfile, default_slots) if hostfile else {}
    ranks = num_ranks(environ, machine, host_slots)
    ranks_here = math.ceil(ranks / max(1, len(host_slots)))
    threads = max(1, machine.num_cores // ranks_here)
    added = {} if "OMP_NUM_THREADS" in environ else {"OMP_NUM_THREADS": str(threads)}
    trainer = [sys.executable, "-m", TRAINER, "--horovod", f"--intra_op_threads={threads}", *flags]
    launcher = environ.get("HOROVOD_LAUNCHER") or "mpi"
    if launcher == "gloo":
        hosts = ["--hostfile", hostfile] if hostfile else ["--hosts", f"localhost:{ranks}"]
        return Job([_program("horovodrun"), "--gloo", "-np", str(ranks), *hosts, *trainer], added)
    if launcher != "mpi":
        raise ValueError(f"HOROVOD_LAUNCHER={launcher} is not known; use mpi or gloo")
    command = [_program("mpirun"), "-np", str(ranks)]
    if machine.is_root:
        command.append("--allow-run-as-root")
    if not hostfile:
        command.append("--use-hwthread-cpus")  # a slot is what num_cores counts, not a physical core
    if ranks_here > machine.num_cores:
        command.append("--oversubscribe")
    # Unbound: the threads of a rank move to the core that is free, also beside another job on the same machine.
    command += ["--bind-to", "none"]
    if hostfile:
        command += ["--hostfile", hostfile]
        for name in sorted({*environ, *added}):
            if _FORWARDED.fullmatch(name):
                command += ["-x", name]
    return Job([*command, *shlex.split(environ.get("MPIRUN_ARGS", "")), *trainer], added)


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def take_max_restarts(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """(N of --max_restarts=N or 0, the other arguments). ValueError unless N is a whole number."""
    restarts, others = 0, []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") != "max_restarts" or not name.startswith("-"):
            others.append(argument)
            continue
        value = value if equals else next(rest, "")
        if not value.isdecimal():
            raise ValueError(f"--max_restarts={value} is no whole number")
        restarts = int(value)
    return restarts, others


class Supervisor:
    """Runs a job to its end. The first SIGTERM or SIGINT asks its ranks to stop; the second ends the job at once."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], trainer: str = TRAINER) -> None:
        self._command, self._environ, self._trainer = list(command), dict(environ), trainer
        self._process: Optional[subprocess.Popen] = None
        self.num_signals = 0

    def run(self) -> int:
        """Starts the job once and returns its exit code."""
        # In its own session, a Ctrl-C of the terminal reaches the ranks only through this process.
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **self._environ},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        if self.num_signals:  # it came before there was a process to hand it to
            self._process.terminate()
        rank_code = _pass_on(self._process.stderr)
        code = self._process.wait()
        if code == 1 and rank_code:  # horovodrun ends with 1 whatever its ranks ended with
            return rank_code
        return code if code >= 0 else 128 - code

    def on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        """Signal handler: hands SIGTERM on to the ranks of this machine, which tell the others."""
        self.num_signals += 1
        if self._process is None or self._process.poll() is not None:
            return
        ranks = [] if self.num_signals > 1 else _ranks_below(self._process.pid, self._trainer)
        if ranks:
            print("Stopping after a checkpoint; once more to stop at once.", file=sys.stderr, flush=True)
        # mpirun itself would follow SIGTERM with SIGKILL before a checkpoint is written.
        for pid in ranks or [self._process.pid]:
            os.kill(pid, signal.SIGTERM)


def _pass_on(stream: IO[bytes]) -> Optional[int]:
    """Copies a job's stderr to ours until it ends; returns the exit code of a rank that its last lines name."""
    tail = b""
    for piece in iter(lambda: stream.read1(65536), b""):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
        tail = (tail + piece)[-1000:]
    named = re.search(rb"^Exit code: (\d+)\s*$", tail, re.MULTILINE)
    return int(named[1]) if named else None


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _ranks_below(pid: int, trainer: str) -> list[int]:
    """Processes 'python -m trainer' that descend from a process; none where there is no /proc."""
    parents: dict[int, int] = {}
    trainers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if words[1:3] == [b"-m", trainer.encode()]:
            trainers.append(int(folder.name))

    def ancestors(child: int) -> set[int]:
        found: set[int] = set()
        while child in parents and parents[child] not in found:
            child = parents[child]
            found.add(child)
        return found

    return [rank for rank in trainers if pid in ancestors(rank) and not ancestors(rank) & set(trainers)]


def run(started: Job, max_restarts: int, trainer: str = TRAINER) -> int:
    """Runs the job, again after each crash up to max_restarts times; the exit code is the last one's."""
    supervisor = Supervisor(started.command, started.environ, trainer)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, supervisor.on_signal)
    code = supervisor.run()
    for attempt in range(1, max_restarts + 1):
        if code in (0, BAD_INPUT) or supervisor.num_signals:
            break
        print(
            f"The job ended with exit code {code}; restart {attempt} of {max_restarts} from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        code = supervisor.run()
    return code


def main(arguments: Sequence[str]) -> int:
    """The door of run_multi_card_FPS.sh; DRY_RUN=1 prints the command."""
    try:
        max_restarts, flags = take_max_restarts(arguments)
        started = job(flags, os.environ, this_machine())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    if os.environ.get("DRY_RUN") == "1":
        print(shlex.join([*(f"{name}={value}" for name, value in started.environ.items()), *started.command]))
        return 0
    try:
        return run(started, max_restarts)
    except FileNotFoundError as error:
        print(f"error: {error.filename} was not found; bash init_tf.sh --horovod installs it", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
