"""Ends a job whose ranks would never stop waiting: for a rank that is stopped, or for a host that is silent.

Neither MPI nor Horovod notices these cases. The ranks of a machine look at each other's processes. Between hosts, a TCP
connection joins rank 0 to the first rank of every other host, and that rank to the other ranks of its host. Whoever
connects proves that it knows a secret, which the ranks exchange through MPI or Horovod. The ports are open on the
loopback and on the networks that lead to the other hosts, until all ranks have come.

The kernels at both ends ask each other every second whether they live (TCP keepalive), also while a rank computes or is
stopped. A rank that finds a host silent says so, tells the ranks that it is joined to, and ends, as they do. A job on
one host has no connection.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import psutil

from bert_pretrain.distributed.messages import exchanged

# A rank that has not joined a collective is named after the first time, and the job ends after the second. 0: never.
# Horovod reads these variables itself.
STALL_SECONDS = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "600"}
LOST_HOST = 75  # exit code of ranks that lost a host, and so of the job; EX_TEMPFAIL in sysexits.h
# Environment variable of the ranks on the launcher's machine: a folder for a file that is named after their exit code.
# mpirun, which waits for the lost host, does not pass the code on.
EXIT_CODE_FOLDER = "BERT_PRETRAIN_EXIT_CODE_FOLDER"

_CONNECT_SECONDS = 10.0  # for each address of a host, and for each part of a greeting; a lost packet costs 1, 2, 4 s
_MAX_GREETINGS = 64  # at a time; strangers that say nothing must not use up the descriptors
_EXIT_SECONDS = 10.0  # in which the launcher ends all ranks after one has died
_LOOPBACK = "127.0.0.1"
_SECRET_BYTES = 32  # of secrets, challenges and digests
_GREETING = struct.Struct(f"!I{_SECRET_BYTES}s")  # rank that connects, its answer to the challenge
_LAST_WORDS = f"the job ends with exit code {LOST_HOST}"
_GOODBYE = b"goodbye\n"
_LONGEST_LINE = 4096


@contextlib.contextmanager
def watching_ranks(
    allgather: Callable[[Any], list[Any]], rank: int, num_ranks: int, heartbeat_seconds: int
) -> Iterator[None]:
    """Inside, this process ends if another rank is stopped, or if another host is silent for heartbeat_seconds.

    A silent host ends it with exit code LOST_HOST; heartbeat_seconds=0: never. allgather is the world's. A collective.
    ValueError for an invalid number of seconds in the environment.
    """
    if num_ranks == 1:
        yield
        return
    ranks = allgather(this_rank_process())
    StoppedRankWatch(ranks, rank, *stall_seconds()).start()
    is_possible = hasattr(socket, "TCP_USER_TIMEOUT")  # on Linux
    if not heartbeat_seconds or len({process.machine for process in ranks}) == 1 or not is_possible:
        yield
        return
    heartbeat = Heartbeat(ranks, rank, heartbeat_seconds)
    endpoints = allgather(heartbeat.listen(allgather(own_addresses())))
    problems = [problem for problem in allgather(heartbeat.connect(endpoints)) if problem]
    heartbeat.close_door()
    if problems and rank == 0:
        print(f"warning: no heartbeat between all hosts: {problems[0]}", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        heartbeat.leave()


@exchanged
class RankProcess(NamedTuple):
    """A rank's process, as other processes of the same machine can find it."""

    machine: str  # host name and PID namespace, because containers number processes by themselves
    pid: int


def this_rank_process() -> RankProcess:
    """The calling process."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:
        container = ""
    return RankProcess(f"{socket.gethostname()} {container}", os.getpid())


def stall_seconds(environ: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """Seconds after which a stopped rank is named, and after which it ends the job."""
    warning, end = (_seconds(name, environ.get(name) or default) for name, default in STALL_SECONDS.items())
    return warning, end


def _seconds(name: str, text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d*)?", text, re.ASCII):
        raise ValueError(f"{name}={text} in the environment is not a number of seconds")
    return float(text)


# --- A rank of this machine that is stopped ---


class StoppedRankWatch:
    """Warns when a rank of this machine is stopped (SIGSTOP, a frozen container), and ends the job if it stays so.

    Horovod's stall check cannot detect this case: its background threads wait for the stopped rank's thread.
    """

    def __init__(self, ranks: Sequence[RankProcess], rank: int, warning_seconds: float, end_seconds: float) -> None:
        """`ranks` holds every rank's process, `rank` is this one; end_seconds=0 means that the job is never ended."""
        self._pids = {r: process.pid for r, process in enumerate(ranks) if process.machine == ranks[rank].machine}
        self._rank = rank
        self._warning_seconds, self._end_seconds = warning_seconds, end_seconds

    def start(self) -> None:
        """Starts a daemon thread that watches until the process ends."""
        if len(self._pids) > 1 and self._warning_seconds > 0:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        interval = self._warning_seconds / 4
        num_intervals_stopped = dict.fromkeys(self._pids, 0)
        while True:
            time.sleep(interval)
            stopped = {rank for rank, pid in self._pids.items() if _is_stopped(pid)}
            # Intervals are counted instead of time: a job that was stopped and continued as a whole has not waited.
            num_intervals_stopped = {r: num_intervals_stopped[r] + 1 if r in stopped else 0 for r in self._pids}
            if self._rank != min(set(self._pids) - stopped, default=None):
                continue  # the lowest running rank of a machine reports for all
            for rank in sorted(stopped):
                self._report(rank, num_intervals_stopped[rank] * interval, interval)

    def _report(self, rank: int, seconds: float, interval: float) -> None:
        pid = self._pids[rank]
        name = f"rank {rank} (process {pid})"
        if self._end_seconds and seconds >= self._end_seconds:
            _print(f"error: {name} was stopped for {seconds:.0f} seconds while the others waited; the job ends")
            os._exit(1)  # an orderly exit would wait for the stopped rank
        if self._warning_seconds <= seconds < self._warning_seconds + interval:
            _print(f"warning: {name} is stopped and the others wait for it; kill -CONT {pid} continues it")


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED  # by a signal; by a debugger does not count
    except psutil.Error:
        return False


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- A host that is silent ---


@exchanged
class Endpoint(NamedTuple):
    """Where the first rank of a host waits for others: addresses and ports."""

    inside: tuple[tuple[str, int], ...]  # for ranks of the same host
    outside: tuple[tuple[str, int], ...]  # for those of other hosts
    secret: bytes  # which only ranks of this job know


class Heartbeat:
    """The connections of one rank."""

    def __init__(self, ranks: Sequence[RankProcess], rank: int, seconds: int) -> None:
        """seconds: how long a host may be silent."""
        self._rank, self._seconds = rank, seconds
        self._hosts = [process.machine for process in ranks]
        self._connections: list[socket.socket] = []
        self._ending = threading.Lock()
        self._has_left = False
        self._expected = {other for other in range(len(ranks)) if self._meant_by(other) == rank}
        self._servers: list[socket.socket] = []
        self._greeting: list[socket.socket] = []  # who connects and has not proved yet that it is a rank
        self._door = threading.Lock()  # held while one of the three changes

    def listen(self, addresses: Sequence[Sequence[str]]) -> Optional[Endpoint]:
        """Waits for others on threads; None on ranks that none connects to. addresses: of each rank's host."""
        if not self._expected:
            return None
        secret, host = secrets.token_bytes(_SECRET_BYTES), self._hosts[self._rank]
        others = {rank for rank in self._expected if self._hosts[rank] != host}
        towards = [address for rank in sorted(others) for address in addresses[rank]]
        outside = addresses_towards(towards, addresses[self._rank]) if others else ()
        inside = (_LOOPBACK,) if len(others) < len(self._expected) else ()
        return Endpoint(self._open_door(inside, secret), self._open_door(outside, secret), secret)

    def connect(self, endpoints: Sequence[Optional[Endpoint]]) -> Optional[str]:
        """Joins this rank to the one before it. Returns the problem if there was one."""
        other = self._meant_by(self._rank)
        if other is None:
            return None
        endpoint = endpoints[other]
        assert endpoint is not None, "every rank that another one means listens"
        places = endpoint.inside if self._hosts[other] == self._hosts[self._rank] else endpoint.outside
        for place in places:
            with contextlib.suppress(OSError):
                connection = socket.create_connection(place, _CONNECT_SECONDS)
                if self._introduce(connection, endpoint.secret):
                    self._watch(connection, other)
                    return None
                connection.close()
        at = ", ".join(address for address, _ in places) or "any address"
        return f"rank {self._rank} on {self._name(self._rank)} does not reach rank {other} at {at}"

    def close_door(self) -> None:
        """Lets nobody in any more."""
        with self._door:
            servers, self._servers = self._servers, []
        for server in servers:
            _hang_up(server)

    def leave(self) -> None:
        """Says goodbye, so that the end of this process is no alarm."""
        with self._ending:
            self._has_left = True
            self._tell(_GOODBYE)

    def _meant_by(self, rank: int) -> Optional[int]:
        """The rank that another one connects to; none for rank 0."""
        first = self._hosts.index(self._hosts[rank])
        return None if rank == 0 else 0 if rank == first else first

    def _name(self, rank: int) -> str:
        return self._hosts[rank].partition(" ")[0]

    def _open_door(self, addresses: Sequence[str], secret: bytes) -> tuple[tuple[str, int], ...]:
        """Listens at those of the addresses where that is possible, and at no other. Returns them with their ports."""
        places = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with contextlib.suppress(OSError):
                server = socket.create_server((address, 0), family=family, backlog=len(self._hosts) + _MAX_GREETINGS)
                self._servers.append(server)
                threading.Thread(target=self._accept, args=[server, secret], name="heartbeat", daemon=True).start()
                places.append((address, server.getsockname()[1]))
        return tuple(places)

    def _accept(self, server: socket.socket, secret: bytes) -> None:
        """Greets all who come side by side: a rank must not wait for strangers that say nothing."""
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                if server not in self._servers:  # the door is closed
                    return
                time.sleep(0.1)  # no descriptor is free, or who came has gone
                continue
            with self._door:
                self._greeting.append(connection)
                too_many = self._greeting[:-_MAX_GREETINGS]
            for oldest in too_many:
                _hang_up(oldest)  # a rank says who it is at once
            threading.Thread(target=self._greet, args=[connection, secret], name="heartbeat", daemon=True).start()

    def _greet(self, connection: socket.socket, secret: bytes) -> None:
        """Watches the connection if it is one of a rank that has to come; else closes it."""
        connection.settimeout(_CONNECT_SECONDS)
        challenge, joined = secrets.token_bytes(_SECRET_BYTES), None
        with contextlib.suppress(OSError, struct.error):
            connection.sendall(challenge)
            rank, answer = _GREETING.unpack(_receive(connection, _GREETING.size))
            if hmac.compare_digest(answer, _prove(secret, b"rank", challenge, rank)) and rank in self._expected:
                connection.sendall(_prove(secret, b"welcome", challenge, rank))
                joined = rank if _receive(connection, 1) else None  # else it has given up waiting
        with self._door:
            self._greeting.remove(connection)
            self._expected.discard(joined)
            are_all_in = not self._expected
        if joined is None:
            _hang_up(connection)
        else:
            self._watch(connection, joined)
        if are_all_in:
            self.close_door()

    def _introduce(self, connection: socket.socket, secret: bytes) -> bool:
        """Says which rank this is; True where the other end has proved to be of this job, too."""
        challenge = _receive(connection, _SECRET_BYTES)
        connection.sendall(_GREETING.pack(self._rank, _prove(secret, b"rank", challenge, self._rank)))
        welcome = _receive(connection, _SECRET_BYTES)
        if not hmac.compare_digest(welcome, _prove(secret, b"welcome", challenge, self._rank)):
            return False
        connection.sendall(b"\n")
        return True

    def _watch(self, connection: socket.socket, other: int) -> None:
        """Listens on a thread to what another rank says, until its host is silent."""
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, 1),
            (socket.TCP_KEEPINTVL, 1),
            (socket.TCP_USER_TIMEOUT, self._seconds * 1000),
        ):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connections.append(connection)
        threading.Thread(target=self._listen, args=[connection, other], name="heartbeat", daemon=True).start()

    def _listen(self, connection: socket.socket, other: int) -> None:
        try:
            said = connection.makefile("rb").readline(_LONGEST_LINE)
        except ConnectionResetError:
            said = b""
        except OSError:  # ETIMEDOUT, EHOSTUNREACH and others: no answer in time
            ranks = [rank for rank, host in enumerate(self._hosts) if host == self._hosts[other]]
            silent = f"host {self._name(other)} ({_span(ranks)}) has been silent for {self._seconds} s"
            self._end(f"error: {silent}; {_LAST_WORDS}\n".encode())
            return
        if said == _GOODBYE:
            return
        if said:
            self._end(said, is_told=True)
            return
        # Usually the launcher ends all ranks now, and the job has the exit code of the one that died.
        time.sleep(_EXIT_SECONDS)
        died = f"rank {other} on {self._name(other)} has ended, and the launcher did not end the others"
        self._end(f"error: {died}; {_LAST_WORDS}\n".encode())

    def _end(self, line: bytes, is_told: bool = False) -> None:
        """Passes the line on and ends this process, whose main thread may hang in a collective."""
        with self._ending:
            if self._has_left:
                return
            if not is_told:
                with contextlib.suppress(OSError):
                    os.write(sys.stderr.fileno(), line)
            self._tell(line)
            _leave_exit_code()
            os._exit(LOST_HOST)  # a checkpoint being written is renamed when it is complete, so nothing is damaged

    def _tell(self, line: bytes) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(line, socket.MSG_DONTWAIT)


def own_addresses() -> tuple[str, ...]:
    """The addresses of this host's interfaces, without those that only this host can use; IPv4 first."""
    families = (socket.AF_INET, socket.AF_INET6)
    held = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    parsed = [ipaddress.ip_address(one.address.partition("%")[0]) for one in held if one.family in families]
    usable = [address for address in parsed if not (address.is_loopback or address.is_link_local)]
    return tuple(map(str, sorted(usable, key=lambda address: address.version)))


def addresses_towards(others: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Those of this host's own addresses from which it sends to others; all where no other host is told apart.

    A host may have networks that the job does not use. An address that both have, as of containers, is no way.
    """
    found = []
    for other in others:
        if other not in own:
            family = socket.AF_INET6 if ":" in other else socket.AF_INET
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((other, 9))  # sends nothing: the kernel looks for a route
                found.append(probe.getsockname()[0])
    return tuple(address for address in own if address in found) or tuple(own)


def _prove(secret: bytes, what: bytes, challenge: bytes, rank: int) -> bytes:
    """What only a process that knows the secret can say."""
    return hmac.digest(secret, b"%s %d %s" % (what, rank, challenge), "sha256")


def _hang_up(connection: socket.socket) -> None:
    """Closes a socket that another thread may wait at."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _leave_exit_code() -> None:
    folder = os.environ.get(EXIT_CODE_FOLDER)
    if folder:
        with contextlib.suppress(OSError):  # another host than the launcher's has no such folder
            Path(folder, str(LOST_HOST)).touch()


def _receive(connection: socket.socket, size: int) -> bytes:
    """Up to `size` bytes, fewer where the other end closes."""
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            break
        received += piece
    return received


def _span(ranks: Sequence[int]) -> str:
    """'rank 2', 'ranks 2-3', 'ranks 0, 2'."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    is_whole = list(ranks) == list(range(ranks[0], ranks[-1] + 1))
    return f"ranks {ranks[0]}-{ranks[-1]}" if is_whole else f"ranks {', '.join(map(str, ranks))}"
