"""Hosts on one machine: network namespaces with a name, an address and an sshd of their own, joined by a switch.

They share the file system, as hosts with common storage do, and the processor. Needs root, iproute2 and openssh-server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import psutil

SSHD = "/usr/sbin/sshd"
_PROGRAMS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen")
_SSHD_CONFIG = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
MaxStartups 100
"""
_SSH_CONFIG = """
Host *
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
  LogLevel ERROR
"""


def why_not() -> Optional[str]:
    """The reason why hosts cannot be made here; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are network namespaces, which need Linux and root"
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing or not Path(SSHD).exists():
        return f"needs {', '.join(missing) or 'sshd'}: apt-get install iproute2 openssh-server"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """One host: node1 has the address 10.99.0.11."""

    def __init__(self, number: int, folder: Path, switch: int) -> None:
        self.name, self.address = f"node{number}", f"10.99.0.{10 + number}"
        self._number, self._folder, self._switch = number, folder, switch
        self._holder = _namespace(f"hostname {self.name}; ")
        _run("ip", "link", "add", "eth0", "netns", str(self.pid), "type", "veth",
             "peer", "name", self._port, "netns", str(switch))  # fmt: skip
        _in(switch, "ip", "link", "set", self._port, "master", "switch", "up")
        _in(self.pid, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _in(self.pid, "ip", "link", "set", device, "up")
        self.boot()

    @property
    def pid(self) -> int:
        """A process that keeps the namespaces."""
        return self._holder.pid

    @property
    def _port(self) -> str:
        return f"port{self._number}"

    def inside(self, *command: str) -> list[str]:
        """The command, run on this host."""
        return [*_enter(self.pid), *command]

    def boot(self, **environ: str) -> None:
        """Starts its sshd; environ: variables of all that ssh starts there."""
        added = ["-o", "SetEnv " + " ".join(f"{name}={value}" for name, value in environ.items())] if environ else []
        _in(self.pid, SSHD, "-f", str(self._folder / "sshd_config"), "-o", f"ListenAddress={self.address}", *added)

    def replace(self, path: Path, content: str) -> None:
        """Only this host finds `content` in a file that exists."""
        other = self._folder / f"{self.name}-{path.name}"
        other.write_text(content)
        _in(self.pid, "mount", "--bind", str(other), str(path))

    def kill(self) -> None:
        """SIGKILL to all of its processes, sshd among them."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Its processes, but for the one that keeps the namespaces."""
        own = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/net") == own and pid != self.pid:
                    found.append(pid)
        return found

    def link(self, state: str) -> None:
        """Its link goes "down" or "up", at the switch: the host itself sees a cable without carrier."""
        _in(self._switch, "ip", "link", "set", self._port, state)

    def lose_packets(self, percent: int) -> bool:
        """Drops that share of the packets that it receives; False where the kernel or nft cannot."""
        hook = "type filter hook ingress device eth0 priority 0"
        rules = f"table netdev loss {{ chain received {{ {hook}; numgen random mod 100 < {percent} drop; }}; }}"
        return self._try("nft", rules)

    def limit_rate(self, rate: str) -> bool:
        """Limits what it sends, for example to "8mbit"; False where the kernel cannot. Packets wait up to a second."""
        queue = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "1s"]
        return self._try("tc", "qdisc", "replace", "dev", "eth0", *queue)

    def _try(self, *command: str) -> bool:
        return subprocess.run(self.inside(*command), capture_output=True, check=False).returncode == 0

    def remove(self) -> None:
        """Ends all of its processes; the namespaces go with them."""
        self.kill()
        self._holder.kill()
        self._holder.wait()


class Hosts:
    """Hosts node1, node2, ... on one switch."""

    def __init__(self, number: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        _make_keys(folder)
        self._switch = _namespace("ip link add switch type bridge; ip link set switch up; ")
        self.all = [Host(i + 1, folder, self._switch.pid) for i in range(number)]
        addresses = ",".join(host.address for host in self.all)
        (folder / "known_hosts").write_text(f"{addresses} {(folder / 'host_key.pub').read_text()}")

    def hostfile(self, slots: int = 1) -> str:
        """A HOSTFILE with all of them."""
        path = self.folder / "hostfile"
        path.write_text("".join(f"{host.address} slots={slots}\n" for host in self.all))
        return str(path)

    @property
    def path(self) -> str:
        """PATH with an ssh that has the keys."""
        return f"{self.folder}/bin:{os.environ['PATH']}"

    def remove(self) -> None:
        for host in self.all:
            host.remove()
        self._switch.kill()
        self._switch.wait()


@contextlib.contextmanager
def made(number: int, folder: Path) -> Iterator[Hosts]:
    """Hosts that are removed at the end, with all of their processes."""
    hosts = Hosts(number, folder)
    try:
        yield hosts
    finally:
        hosts.remove()


def _make_keys(folder: Path) -> None:
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's empty directory, which an init script makes elsewhere
    for name in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "sshd_config").write_text(_SSHD_CONFIG.format(folder=folder))
    (folder / "ssh_config").write_text(_SSH_CONFIG.format(folder=folder))
    (folder / "bin").mkdir()
    ssh = folder / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    ssh.chmod(0o755)


def _namespace(setup: str) -> subprocess.Popen:
    """A process in network and UTS namespaces of its own."""
    process = subprocess.Popen(
        ["unshare", "--net", "--uts", "--mount", "sh", "-c", f"{setup}echo ready; exec sleep infinity"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == b"ready\n", setup
    return process


def _in(pid: int, *command: str) -> None:
    _run(*_enter(pid), *command)


def _enter(pid: int) -> list[str]:
    return ["nsenter", f"--target={pid}", "--net", "--uts", "--mount", f"--wd={os.getcwd()}"]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
