"""The hosts of a HOSTFILE: what it says, which of them answer ssh, and waiting for those that do not.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

from bert_pretrain.system import files, processes

_SHOWN = 40  # characters of an invalid value in a message
_PROBE_SECONDS = 8  # in which a host must answer
_PAUSE_SECONDS = 1.0  # between two probes
# Where mpirun reads which program starts processes on other hosts; Open MPI 5 and 4.
_AGENTS = ("PRTE_MCA_plm_ssh_agent", "OMPI_MCA_plm_rsh_agent")


def parse_num_processes(name: str, text: str) -> int:
    """The number of processes that a variable holds. ValueError unless it is a whole number of at least 1."""
    if not processes.is_whole_number(text) or int(text) < 1:
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
            number = parse_num_processes(f"HOSTFILE={path}: slots", given[0]) if given else default_slots
            slots[words[0]] = slots.get(words[0], 0) + number
    if not slots:
        raise ValueError(f"HOSTFILE={path} names no host; write one line 'name slots=8' for each")
    return slots


def write_hostfile(path: str, slots: Mapping[str, int]) -> None:
    """The file that read_hostfile reads."""
    with files.atomic_write(path) as file:
        file.writelines(f"{name} slots={number}\n" for name, number in slots.items())


class ReachableHosts:
    """The hosts that answered ssh at the start, and whether they still do.

    A host that did not answer then is started by other means than ssh, and nothing is known of it.
    """

    def __init__(self, names: Iterable[str], environ: Mapping[str, str]) -> None:
        """names: of all hosts; environ: where mpirun is told how to start processes on them."""
        self._agent = _agent(environ)
        self._probed = [name for name in names if not _is_here(name)]
        self._probed = [name for name in self._probed if name in self._answering()]

    def missing(self, seconds: float, is_stopped: Callable[[], bool]) -> list[str]:
        """The hosts that do not answer any more; waits up to `seconds` for them to come back."""
        deadline, is_told = time.monotonic() + seconds, False
        while True:
            answering = self._answering()
            missing = [name for name in self._probed if name not in answering]
            if not missing or time.monotonic() >= deadline or is_stopped():
                return missing
            if not is_told:
                is_told = True
                told = f"{', '.join(missing)} does not answer ssh; waiting {seconds:g} s for it (--rejoin_seconds)."
                print(told, file=sys.stderr, flush=True)
            time.sleep(_PAUSE_SECONDS)

    def _answering(self) -> set[str]:
        """The probed hosts on which this Python can be run now; all are asked at once."""
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_PROBE_SECONDS // 2}"]
        question = f"test -x {shlex.quote(sys.executable)}"
        asked = {}
        for name in self._probed:
            with contextlib.suppress(OSError):  # there is no such program
                asked[name] = _start([*self._agent, *options, name, question])
        deadline = time.monotonic() + _PROBE_SECONDS
        return {name for name, process in asked.items() if _succeeds(process, deadline)}


def _agent(environ: Mapping[str, str]) -> Sequence[str]:
    """The program that mpirun uses to reach other hosts, with its arguments."""
    words = shlex.split(environ.get("MPIRUN_ARGS", ""))
    given = [value for name, value in zip(words, words[1:]) if re.fullmatch("plm_[rs]sh_agent", name)]
    given += [environ[name] for name in _AGENTS if environ.get(name)]
    return shlex.split(given[0].partition(":")[0]) if given else ["ssh"]


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    # A session of its own: a terminal's Ctrl-C is not for it.
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _succeeds(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _is_here(name: str) -> bool:
    """Whether a name or an address is this host's."""
    if name in ("localhost", socket.gethostname(), os.uname().nodename):
        return True
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, number, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, number) as probe:
            probe.bind(address)  # only own addresses can be bound
            return True
    return False
