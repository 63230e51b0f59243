"""Starts one process per GPU under mpirun or horovodrun, forwards signals and restarts the job after a crash.

scripts/run_multi_card_FPS.sh calls it. It imports little, so that it starts at once.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bert_pretrain.config.recipe import LauncherConfig
from bert_pretrain.launch import hosts
from bert_pretrain.launch.supervisor import INVALID_INPUT, LaunchCommand, Supervisor
from bert_pretrain.system import files, processes, streams
from bert_pretrain.system.gpus import machine_gpus, shown_gpus

TRAINER = "bert_pretrain.run"
_GPU_CHECK = "bert_pretrain.tensorflow_compat.visible_gpus"
# mpirun gives up a host after 20 + 8 x 5 seconds without an answer, also before the ranks have joined; its own default
# is eight minutes. For Open MPI 5 and 4.
_KEEPALIVE = {
    f"{project}_MCA_oob_tcp_keepalive_{name}": value
    for project in ("PRTE", "OMPI")
    for name, value in (("time", "20"), ("intvl", "5"), ("probes", "8"))
}
_SHOWN = 40  # characters of an invalid value in a message

# Environment variables that ranks on other machines need; ranks of this machine inherit all.
_FORWARDED = re.compile(
    r"(PYTHON(SAFE)?)?PATH|LD_LIBRARY_PATH|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES|BERT_PRETRAIN_CACHE"
    r"|GOOGLE_APPLICATION_CREDENTIALS|(AWS|HOROVOD|NCCL|TF)_(?!CONFIG$)\w+"
)


class LocalMachine(NamedTuple):
    """What the number of ranks and their threads depend on."""

    num_cores: int
    num_gpus: int
    is_root: bool  # the user is root, whom mpirun refuses unless told otherwise


def read_local_machine() -> LocalMachine:
    """The cores that this process may use and the GPUs of this machine."""
    return LocalMachine(num_cores=files.num_cores(), num_gpus=len(machine_gpus()), is_root=os.geteuid() == 0)


def _require_visible_gpus() -> None:
    """ValueError where this machine shows GPUs of which TensorFlow sees none; imports it in a process of its own."""
    if not shown_gpus():
        return
    check = subprocess.run([sys.executable, "-m", _GPU_CHECK], capture_output=True, text=True, check=False)
    if check.returncode == INVALID_INPUT:
        raise ValueError(check.stderr.strip().splitlines()[-1].partition(": ")[2])


def usable_machine(machine: LocalMachine, only_cpu: bool) -> LocalMachine:
    """The machine without its GPUs where the CPU is asked for. ValueError where it cannot use them."""
    if only_cpu:
        return machine._replace(num_gpus=0)
    if machine.num_gpus:
        _require_visible_gpus()
    return machine


def _asks_for_cpu(flags: Sequence[str]) -> bool:
    """Whether the trainer's flags have --device=cpu."""
    from bert_pretrain import cli  # imports absl, for which only a machine with GPUs has to wait
    from bert_pretrain.config.training import DeviceConfig

    (device,) = cli.read_arguments(flags, [DeviceConfig])
    return device.device == "cpu"


def choose_num_ranks(
    environ: Mapping[str, str], machine: LocalMachine, host_slots: Optional[Mapping[str, int]] = None
) -> int:
    """NP, else the hostfile's slots, IX_NUM_CUDA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, the GPUs, or 2 on CPUs."""
    if environ.get("NP"):
        return hosts.parse_num_processes("NP", environ["NP"])
    if host_slots:
        return sum(host_slots.values())
    if environ.get("IX_NUM_CUDA_VISIBLE_DEVICES"):
        return hosts.parse_num_processes("IX_NUM_CUDA_VISIBLE_DEVICES", environ["IX_NUM_CUDA_VISIBLE_DEVICES"])
    num_gpus = machine.num_gpus
    if "CUDA_VISIBLE_DEVICES" in environ:
        # CUDA stops reading at the first entry that is not a device; -1 and an empty list hide all GPUs.
        entries = [entry.strip() for entry in environ["CUDA_VISIBLE_DEVICES"].split(",")]
        num_gpus = next((i for i, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")), len(entries))
    return num_gpus or 2


def _hostfile(environ: Mapping[str, str]) -> str:
    """The path in HOSTFILE, empty without one; a shell leaves ~ as it is within quotes."""
    return os.path.expanduser(environ.get("HOSTFILE", ""))


def read_host_slots(environ: Mapping[str, str], machine: LocalMachine) -> dict[str, int]:
    """Host -> processes as HOSTFILE says; empty without one."""
    path = _hostfile(environ)
    return hosts.read_hostfile(path, machine.num_gpus or machine.num_cores) if path else {}


def launch_command(flags: Sequence[str], environ: Mapping[str, str], machine: LocalMachine) -> LaunchCommand:
    """The command for the trainer's flags. ValueError for an invalid environment variable."""
    hostfile, host_slots = _hostfile(environ), read_host_slots(environ, machine)
    ranks = choose_num_ranks(environ, machine, host_slots)
    ranks_here = math.ceil(ranks / max(1, len(host_slots)))
    threads = max(1, machine.num_cores // ranks_here)
    added = {} if "OMP_NUM_THREADS" in environ else {"OMP_NUM_THREADS": str(threads)}
    trainer = [sys.executable, "-m", TRAINER, "--horovod", f"--intra_op_threads={threads}", *flags]
    launcher = environ.get("HOROVOD_LAUNCHER") or "mpi"
    if launcher == "gloo":
        where = _host_arguments("--hosts", host_slots or {"localhost": ranks}, hostfile)
        return LaunchCommand([_program("horovodrun"), "--gloo", "-np", str(ranks), *where, *trainer], added)
    if launcher != "mpi":
        raise ValueError(f"HOROVOD_LAUNCHER={launcher} is not known; use mpi or gloo")
    options = _mpirun_options({**environ, **added}, machine, ranks_here, host_slots)
    if hostfile:
        added.update((name, value) for name, value in _KEEPALIVE.items() if name not in environ)
    return LaunchCommand([_program("mpirun"), "-np", str(ranks), *options, *trainer], added)


def _host_arguments(option: str, slots: Mapping[str, int], hostfile: str) -> list[str]:
    """Hosts for mpirun or horovodrun: in a list, which both read alike, or where that cannot be, the user's file."""
    if all(map(hosts.is_in_lists, slots)):
        return [option, ",".join(f"{name}:{number}" for name, number in slots.items())]
    return ["--hostfile", hostfile]


def _mpirun_options(
    environ: Mapping[str, str], machine: LocalMachine, ranks_here: int, host_slots: Mapping[str, int]
) -> list[str]:
    options = ["--allow-run-as-root"] if machine.is_root else []
    if not host_slots:
        options.append("--use-hwthread-cpus")  # num_cores counts hardware threads; mpirun counts physical cores
    if ranks_here > machine.num_cores:
        options.append("--oversubscribe")
    # Unbound, a rank's threads can move to an idle core, also when another job runs on the machine.
    options += ["--bind-to", "none"]
    if host_slots:
        options += _host_arguments("--host", host_slots, _hostfile(environ))
        for name in sorted(filter(_FORWARDED.fullmatch, environ)):
            options += ["-x", name]
    return options + shlex.split(environ.get("MPIRUN_ARGS", ""))


def _program(name: str) -> str:
    """The program of this Python's environment, else the one on PATH."""
    beside_python = Path(sys.executable).parent / name
    return str(beside_python) if beside_python.exists() else name


def take_number_flag(wanted: str, default: int, arguments: Sequence[str]) -> tuple[int, list[str]]:
    """(N of --wanted=N or the default, the other arguments). ValueError unless N is a whole number."""
    number, others = default, []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") != wanted or not name.startswith("-"):
            others.append(argument)
            continue
        value = value if equals else next(rest, "")
        if not processes.is_whole_number(value):
            raise ValueError(f"--{wanted}={value[:_SHOWN]} is not a whole number")
        number = int(value)
    return number, others


class RestartableJob:
    """A job that may crash, as it starts again on the hosts that answer."""

    def __init__(self, flags: Sequence[str], environ: Mapping[str, str], machine: LocalMachine, folder: str) -> None:
        """What launch_command takes; folder: where a hostfile can be written. Asks the hosts whether they answer."""
        self._flags, self._environ, self._machine, self._folder = flags, environ, machine, folder
        self._slots = read_host_slots(environ, machine)
        self._reachable = hosts.ReachableHosts(self._slots if len(self._slots) > 1 else (), environ)

    def restart_command(self, rejoin_seconds: int, supervisor: Supervisor) -> LaunchCommand:
        """Waits up to rejoin_seconds for lost hosts, then leaves them out; an update keeps its examples.

        Returns at once when a signal comes to the supervisor.
        """
        if len(self._slots) < 2:
            return launch_command(self._flags, self._environ, self._machine)
        from bert_pretrain.launch.division import divide_update  # imports absl, for which only a restart has to wait

        missing = self._reachable.missing(rejoin_seconds, lambda: supervisor.is_stopped)
        slots = {name: number for name, number in self._slots.items() if name not in missing} or self._slots
        ranks = choose_num_ranks(self._environ, self._machine, self._slots)
        division = divide_update(self._flags, ranks, ranks if slots == self._slots else min(ranks, sum(slots.values())))
        lost = f"; without {', '.join(missing)}" if missing else ""
        print(f"It goes on with {', '.join(slots)}{lost}; {division}.", file=sys.stderr, flush=True)
        if slots == self._slots:
            return launch_command(self._flags, self._environ, self._machine)
        hostfile = os.path.join(self._folder, "hostfile")
        hosts.write_hostfile(hostfile, slots)
        environ = {**self._environ, "HOSTFILE": hostfile, "NP": str(division.num_ranks)}
        return launch_command([*self._flags, *division.flags], environ, self._machine)


def run_with_restarts(
    command: LaunchCommand,
    trainer: str,
    max_restarts: int = 0,
    job: Optional[RestartableJob] = None,
    rejoin_seconds: int = 0,
) -> int:
    """Runs the command, again after each crash up to max_restarts times. Returns the last exit code.

    The ranks are the processes `python -m trainer` below the command. The job, if there is one, says the commands of
    restarts.
    """
    supervisor = Supervisor(trainer)
    code = supervisor.run(command)
    for attempt in range(1, max_restarts + 1):
        if code in (0, INVALID_INPUT) or supervisor.is_stopped:
            break
        print(
            f"The job ended with exit code {code}; restart {attempt} of {max_restarts} from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        if job:
            command = job.restart_command(rejoin_seconds, supervisor)
        if supervisor.is_stopped:
            break
        code = supervisor.run(command)
    return code


def _find_home() -> None:
    """mpirun ends without HOME, which a container may not set; the cache stays where it is without it."""
    if "HOME" not in os.environ:
        cache, home = str(files.cache_directory("")), os.path.expanduser("~")
        os.environ.update(BERT_PRETRAIN_CACHE=cache, HOME=cache if home == "~" else home)


def main(arguments: Sequence[str]) -> int:
    """Starts the job with the trainer's flags; DRY_RUN=1 prints the command. Returns the job's exit code."""
    streams.secure_streams()
    try:
        max_restarts, flags = take_number_flag("max_restarts", LauncherConfig.max_restarts, arguments)
        rejoin_seconds, flags = take_number_flag("rejoin_seconds", LauncherConfig.rejoin_seconds, flags)
        machine = read_local_machine()
        if machine.num_gpus:
            machine = usable_machine(machine, _asks_for_cpu(flags))
        command = launch_command(flags, os.environ, machine)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return INVALID_INPUT
    if os.environ.get("DRY_RUN") == "1":
        added = [f"{name}={value}" for name, value in command.environ.items()]
        streams.print_answer(shlex.join([*added, *command.arguments]))
        return 0
    _find_home()
    try:
        with files.temporary_directory() as folder:
            job = RestartableJob(flags, os.environ, machine, folder) if max_restarts else None
            return run_with_restarts(command, TRAINER, max_restarts, job, rejoin_seconds)
    except FileNotFoundError as error:
        print(f"error: {error.filename} was not found; bash init_tf.sh --horovod installs it", file=sys.stderr)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {command.arguments[0]} cannot be started: {error.strerror}", file=sys.stderr)
    return INVALID_INPUT
