"""The hosts of a HOSTFILE: what it says, which of them answer ssh, and waiting for those that do not.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple, Optional

from bert_pretrain.system import files, processes

_SHOWN = 40  # characters of an invalid value in a message
_FORM = "write one line 'name slots=8' for each host"
# The words of mpirun's hostfiles, lower case with _ for -, by what they mean. A number of CPUs is one of slots there.
_KEYS = {
    **dict.fromkeys(("slots", "cpu", "count"), "slots"),
    **dict.fromkeys(("max_slots", "slots_max", "max_cpu", "cpu_max", "max_count", "count_max"), "max_slots"),
    **dict.fromkeys(("username", "user_name"), "username"),
}
_NUMBERS = ("slots", "max_slots")
_NAME = re.compile(r"([\w.-]+@)?\w([\w.-]|\[[\d,-]+\])*")
_MAX_HOSTS = 10_000  # of one range
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
    """Host -> processes, from lines as mpirun reads them, or items of horovodrun's or Slurm's lists of hosts.

    'name slots=N max_slots=M username=U', 'name:N', 'name[01-04]:N', several separated by commas; '#' and '//' start a
    comment. Slots of repeated hosts add up. ValueError, one line, where it cannot be read, for the first line that is
    none of these, and where it names no host.
    """
    try:
        with files.open_regular(path) as file:
            lines = file.read().lstrip("\ufeff").splitlines()
    except OSError as error:
        raise ValueError(f"HOSTFILE={path} cannot be read: {error.strerror}; {_FORM}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"HOSTFILE={path} is no text: {error.reason} at byte {error.start}") from None
    slots: dict[str, int] = {}
    lists: list[str] = []  # where lines are that mpirun would read otherwise
    for number, line in enumerate(lines, 1):
        where = f"HOSTFILE={path}, line {number}"
        text = re.split("#|//", line)[0].strip()
        if not text:
            continue
        hosts, options = _parse_line(where, text)
        if list(hosts) != text.split()[:1] or re.search("[A-Z]", "".join(text.split()[1:]).split("username")[0]):
            lists.append(where)
        for host, given in hosts.items():
            if given and options.slots:
                raise ValueError(f"{where}: {text[:_SHOWN]!r} gives slots twice; {_FORM}")
            name = f"{options.user}@{host}" if options.user else host
            slots[name] = slots.get(name, 0) + (given or options.slots or default_slots)
    if not slots:
        raise ValueError(f"HOSTFILE={path} names no host; {_FORM}")
    needing_file = [name for name in slots if not is_in_lists(name)]
    if needing_file and lists:
        raise ValueError(
            f"{lists[0]}: beside {needing_file[0]}, for which mpirun reads the file itself, this is not understood; "
            f"{_FORM}"
        )
    return slots


def is_in_lists(name: str) -> bool:
    """Whether mpirun takes a host in --host; others, with a user or an IPv6 address, are in a hostfile alone."""
    return not re.search("[@:]", name)


class _Options(NamedTuple):
    """What follows the name of a host."""

    slots: Optional[int]
    user: str


def _parse_line(where: str, text: str) -> tuple[dict[str, Optional[int]], _Options]:
    """(host -> its own number of slots, options of all). ValueError for what is none of the forms."""
    first, *rest = re.sub(r"\s*=\s*", "=", re.sub(r"\s*,\s*", ",", text)).split()
    values: dict[str, str] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        kind = _KEYS.get(key.lower().replace("-", "_"))
        if not (equals and value and kind) or kind in values:
            remedy = f"write {first} slots={word}" if word.isdecimal() else _FORM
            raise ValueError(f"{where}: {word[:_SHOWN]!r} is not understood; {remedy}")
        values[kind] = value
    numbers = {kind: parse_num_processes(f"{where}: {kind}", values[kind]) for kind in _NUMBERS if kind in values}
    hosts: dict[str, Optional[int]] = {}
    for item in re.split(r",(?![^\[]*\])", first):
        name, slots = _parse_item(where, item)
        for host in _expand(where, name):
            if host in hosts:
                raise ValueError(f"{where}: {host} is there twice; {_FORM}")
            hosts[host] = slots
    return hosts, _Options(numbers.get("slots", numbers.get("max_slots")), values.get("username", ""))


def _parse_item(where: str, item: str) -> tuple[str, Optional[int]]:
    """'name', 'name:4', '[fe80::1]:4' or 'fe80::1' as name and slots."""
    name, colon, number = item.rpartition(":")
    in_brackets = re.fullmatch(r"\[([^\]]*:[^\]]*)\](:(.*))?", item)
    if in_brackets:
        name, colon, number = in_brackets[1], in_brackets[2], in_brackets[3]
    elif not colon or name.count(":"):
        name, colon = item, ""
    is_right = _is_ipv6(name) if ":" in name else _NAME.fullmatch(name)
    if not is_right:
        raise ValueError(f"{where}: {item[:_SHOWN]!r} is no host; {_FORM}")
    return name, parse_num_processes(f"{where}: {name}: slots", number) if colon else None


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).version == 6
    except ValueError:
        return False


def _expand(where: str, name: str) -> Iterator[str]:
    """The hosts of 'node[01-03,7]', in Slurm's way; a name without brackets alone."""
    match = re.fullmatch(r"([^\[\]]*)\[([\d,-]+)\](.*)", name) if ":" not in name else None
    if match is None:
        yield name
        return
    for part in match[2].split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _MAX_HOSTS):
            raise ValueError(f"{where}: {part!r} in {name[:_SHOWN]!r} is no range of numbers; write it as node[01-04]")
        for number in range(int(first), int(last) + 1):
            for end in _expand(where, match[3]):
                yield f"{match[1]}{number:0{len(first)}d}{end}"


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
    name = name.rpartition("@")[2]
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
