"""Starts one process per GPU under mpirun or horovodrun, forwards signals and restarts the job after a crash.

scripts/run_multi_card_FPS.sh calls it. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bert_pretrain import files, processes, supervisor

TRAINER = "bert_pretrain.run"
_SHOWN = 40  # characters of an invalid value in a message

# Environment variables that ranks on other machines need; ranks of this machine inherit all.
_FORWARDED = re.compile(r"PATH|LD_LIBRARY_PATH|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES|(HOROVOD|NCCL|TF)_(?!CONFIG$)\w+")


class Machine(NamedTuple):
    """What the number of ranks and their threads depend on."""

    num_cores: int
    num_gpus: int
    is_root: bool  # the user is root, whom mpirun refuses unless told otherwise


class Command(NamedTuple):
    """A command that starts all ranks, and the environment variables that it adds."""

    arguments: list[str]
    environ: Mapping[str, str]


def this_machine() -> Machine:
    """The cores that this process may use and the GPUs of this machine."""
    return Machine(num_cores=files.num_cores(), num_gpus=_num_gpus(), is_root=os.geteuid() == 0)


def _num_gpus() -> int:
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())
    return len([path for path in Path("/dev").glob("iluvatar*") if re.fullmatch(r"iluvatar\d+", path.name)])


def num_ranks(environ: Mapping[str, str], machine: Machine, host_slots: Optional[Mapping[str, int]] = None) -> int:
    """NP, else the hostfile's slots, IX_NUM_CUDA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, the GPUs, or 2 on CPUs."""
    if environ.get("NP"):
        return _positive("NP", environ["NP"])
    if host_slots:
        return sum(host_slots.values())
    if environ.get("IX_NUM_CUDA_VISIBLE_DEVICES"):
        return _positive("IX_NUM_CUDA_VISIBLE_DEVICES", environ["IX_NUM_CUDA_VISIBLE_DEVICES"])
    num_gpus = machine.num_gpus
    if "CUDA_VISIBLE_DEVICES" in environ:
        # CUDA stops reading at the first entry that is not a device; -1 and an empty list hide all GPUs.
        entries = [entry.strip() for entry in environ["CUDA_VISIBLE_DEVICES"].split(",")]
        num_gpus = next((i for i, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")), len(entries))
    return num_gpus or 2


def _positive(name: str, text: str) -> int:
    if not processes.is_number(text) or int(text) < 1:
        raise ValueError(f"{name}={text[:_SHOWN]} is not a number of processes; give a whole number of at least 1")
    return int(text)


def read_hostfile(path: str, default_slots: int) -> dict[str, int]:
    """Host -> processes, from lines 'name slots=N' as Open MPI and Horovod read them; '#' starts a comment.

    Slots of repeated lines add up. ValueError, one line, where it cannot be read or names no host.
    """
    try:
        with files.open_regular(path) as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ValueError(f"HOSTFILE={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"HOSTFILE={path} is no text: {error.reason} at byte {error.start}") from None
    slots: dict[str, int] = {}
    for line in lines:
        words = line.partition("#")[0].split()
        if words:
            given = [word.partition("=")[2] for word in words[1:] if word.startswith("slots=")]
            number = _positive(f"HOSTFILE={path}: slots", given[0]) if given else default_slots
            slots[words[0]] = slots.get(words[0], 0) + number
    if not slots:
        raise ValueError(f"HOSTFILE={path} names no host; write one line 'name slots=8' for each")
    return slots


def _hostfile(environ: Mapping[str, str]) -> str:
    """The path in HOSTFILE, empty without one; a shell leaves ~ as it is within quotes."""
    return os.path.expanduser(environ.get("HOSTFILE", ""))


def launch_command(flags: Sequence[str], environ: Mapping[str, str], machine: Machine) -> Command:
    """The command for the trainer's flags. ValueError for an invalid environment variable."""
    hostfile = _hostfile(environ)
    host_slots = read_hostfile(hostfile, machine.num_gpus or machine.num_cores) if hostfile else {}
    ranks = num_ranks(environ, machine, host_slots)
    ranks_here = math.ceil(ranks / max(1, len(host_slots)))
    threads = max(1, machine.num_cores // ranks_here)
    added = {} if "OMP_NUM_THREADS" in environ else {"OMP_NUM_THREADS": str(threads)}
    trainer = [sys.executable, "-m", TRAINER, "--horovod", f"--intra_op_threads={threads}", *flags]
    launcher = environ.get("HOROVOD_LAUNCHER") or "mpi"
    if launcher == "gloo":
        hosts = ["--hostfile", hostfile] if hostfile else ["--hosts", f"localhost:{ranks}"]
        return Command([_program("horovodrun"), "--gloo", "-np", str(ranks), *hosts, *trainer], added)
    if launcher != "mpi":
        raise ValueError(f"HOROVOD_LAUNCHER={launcher} is not known; use mpi or gloo")
    options = _mpirun_options({**environ, **added}, machine, ranks_here)
    return Command([_program("mpirun"), "-np", str(ranks), *options, *trainer], added)


def _mpirun_options(environ: Mapping[str, str], machine: Machine, ranks_here: int) -> list[str]:
    options = ["--allow-run-as-root"] if machine.is_root else []
    hostfile = _hostfile(environ)
    if not hostfile:
        options.append("--use-hwthread-cpus")  # num_cores counts hardware threads; mpirun counts physical cores
    if ranks_here > machine.num_cores:
        options.append("--oversubscribe")
    # Unbound, a rank's threads can move to an idle core, also when another job runs on the machine.
    options += ["--bind-to", "none"]
    if hostfile:
        options += ["--hostfile", hostfile]
        for name in sorted(filter(_FORWARDED.fullmatch, environ)):
            options += ["-x", name]
    return options + shlex.split(environ.get("MPIRUN_ARGS", ""))


def _program(name: str) -> str:
    """The program of this Python's environment, else the one on PATH."""
    beside_python = Path(sys.executable).parent / name
    return str(beside_python) if beside_python.exists() else name


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
        if not processes.is_number(value):
            raise ValueError(f"--max_restarts={value[:_SHOWN]} is not a whole number")
        restarts = int(value)
    return restarts, others


def main(arguments: Sequence[str]) -> int:
    """Starts the job with the trainer's flags; DRY_RUN=1 prints the command. Returns the job's exit code."""
    try:
        max_restarts, flags = take_max_restarts(arguments)
        command = launch_command(flags, os.environ, this_machine())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return supervisor.INVALID_INPUT
    if os.environ.get("DRY_RUN") == "1":
        print(shlex.join([*(f"{name}={value}" for name, value in command.environ.items()), *command.arguments]))
        return 0
    try:
        return supervisor.run(command.arguments, command.environ, TRAINER, max_restarts)
    except FileNotFoundError as error:
        print(f"error: {error.filename} was not found; bash init_tf.sh --horovod installs it", file=sys.stderr)
        return supervisor.INVALID_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
