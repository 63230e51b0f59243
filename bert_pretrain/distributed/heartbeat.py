"""Ends a job one of whose hosts is silent: MPI and Horovod would wait for it for ever.

A TCP connection joins rank 0 to the first rank of every other host, and that rank to the other ranks of its host. The
kernels at both ends ask each other every second whether they live (TCP keepalive), also while a rank computes or is
stopped. A rank that finds a host silent says so, tells the ranks that it is joined to, and ends, as they do. Standard
library only; a job on one host has no connection and no thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from bert_pretrain.system.processes import Process

EXIT_CODE = 75  # of ranks that lost a host, and so of the job; EX_TEMPFAIL in sysexits.h
LAST_WORDS = f"the job ends with exit code {EXIT_CODE}"  # at the end of the line that says why

_CONNECT_SECONDS = 10.0  # for each address of a host, and for a greeting to come; a lost packet costs 1, 2, 4 s
_EXIT_SECONDS = 10.0  # in which the launcher ends all ranks after one has died
_GREETING = struct.Struct("!16sII")  # token, rank that connects, rank that is meant
_ANSWER, _GOODBYE = b"heartbeat\n", b"goodbye\n"
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


class Endpoint(NamedTuple):
    """Where the first rank of a host waits for others."""

    addresses: tuple[str, ...]
    port: int
    token: bytes  # 16 bytes that only ranks of this job know


@contextlib.contextmanager
def watching(
    allgather: Callable[[Any], list[Any]], ranks: Sequence[Process], rank: int, seconds: int
) -> Iterator[None]:
    """Inside, this process ends with EXIT_CODE if another host has been silent for `seconds`; 0: never.

    `ranks` holds every rank's process, `rank` is this one; allgather is the world's. A collective.
    """
    is_possible = hasattr(socket, "TCP_USER_TIMEOUT")  # on Linux
    if not seconds or len({process.machine for process in ranks}) < 2 or not is_possible:
        yield
        return
    heartbeat = Heartbeat(ranks, rank, seconds)
    endpoints = allgather(heartbeat.listen())
    problems = [problem for problem in allgather(heartbeat.connect(endpoints)) if problem]
    if problems and rank == 0:
        print(f"warning: no heartbeat between all hosts: {problems[0]}", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        heartbeat.leave()


class Heartbeat:
    """The connections of one rank."""

    def __init__(self, ranks: Sequence[Process], rank: int, seconds: int) -> None:
        """seconds: how long a host may be silent."""
        self._rank, self._seconds = rank, seconds
        self._hosts = [process.machine for process in ranks]
        self._connections: list[socket.socket] = []
        self._ending = threading.Lock()
        self._has_left = False

    def listen(self) -> Optional[Endpoint]:
        """Waits for others on a thread; None on ranks that are not the first of their host."""
        if self._first_rank() != self._rank:
            return None
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        server = socket.create_server(
            ("", 0), family=family, backlog=len(self._hosts), dualstack_ipv6=family == socket.AF_INET6
        )
        token = secrets.token_bytes(16)
        threading.Thread(target=self._accept, args=[server, token], name="heartbeat", daemon=True).start()
        return Endpoint(own_addresses(), server.getsockname()[1], token)

    def connect(self, endpoints: Sequence[Optional[Endpoint]]) -> Optional[str]:
        """Joins this rank to the one before it. Returns the problem if there was one."""
        first = self._first_rank()
        other = 0 if self._rank == first else first
        if self._rank == 0:
            return None
        endpoint = endpoints[other]
        addresses = endpoint.addresses if other == 0 and first != 0 else ("127.0.0.1",)
        for address in addresses:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((address, endpoint.port), _CONNECT_SECONDS)
                connection.sendall(_GREETING.pack(endpoint.token, self._rank, other))
                if _receive(connection, len(_ANSWER)) == _ANSWER:
                    self._watch(connection, other)
                    return None
                connection.close()
        at = ", ".join(addresses) or "any address"
        return f"rank {self._rank} on {self._name(self._rank)} does not reach rank {other} at {at}"

    def leave(self) -> None:
        """Says goodbye, so that the end of this process is no alarm."""
        with self._ending:
            self._has_left = True
            self._tell(_GOODBYE)

    def _first_rank(self) -> int:
        return self._hosts.index(self._hosts[self._rank])

    def _name(self, rank: int) -> str:
        return self._hosts[rank].partition(" ")[0]

    def _accept(self, server: socket.socket, token: bytes) -> None:
        while True:
            connection, _ = server.accept()
            with contextlib.suppress(OSError, struct.error):
                connection.settimeout(_CONNECT_SECONDS)
                found, other, meant = _GREETING.unpack(_receive(connection, _GREETING.size))
                if found == token and meant == self._rank and other < len(self._hosts):
                    connection.sendall(_ANSWER)
                    self._watch(connection, other)
                    continue
            connection.close()

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
            said = connection.makefile("rb").readline()
        except ConnectionResetError:
            said = b""
        except OSError:  # ETIMEDOUT, EHOSTUNREACH and others: no answer in time
            ranks = [rank for rank, host in enumerate(self._hosts) if host == self._hosts[other]]
            silent = f"host {self._name(other)} ({_span(ranks)}) has been silent for {self._seconds} s"
            self._end(f"error: {silent}; {LAST_WORDS}\n".encode())
            return
        if said == _GOODBYE:
            return
        if said:
            self._end(said, is_told=True)
            return
        # Usually the launcher ends all ranks now, and the job has the exit code of the one that died.
        time.sleep(_EXIT_SECONDS)
        died = f"rank {other} on {self._name(other)} has ended, and the launcher did not end the others"
        self._end(f"error: {died}; {LAST_WORDS}\n".encode())

    def _end(self, line: bytes, is_told: bool = False) -> None:
        """Passes the line on and ends this process, whose main thread may hang in a collective."""
        with self._ending:
            if self._has_left:
                return
            if not is_told:
                os.write(sys.stderr.fileno(), line)
            self._tell(line)
            os._exit(EXIT_CODE)  # a checkpoint being written is renamed when it is complete, so nothing is damaged

    def _tell(self, line: bytes) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(line, socket.MSG_DONTWAIT)


def own_addresses() -> tuple[str, ...]:
    """The addresses of this host's interfaces, without those that only this host can use."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for _, interface in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(one, _SIOCGIFADDR, struct.pack("256s", interface.encode()))
                found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
        found += [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in lines]
    parsed = map(ipaddress.ip_address, found)
    return tuple(str(address) for address in parsed if not (address.is_loopback or address.is_link_local))


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
