"""A real S3 server on loopback (moto's, in a process of its own), and a proxy before it that injects errors."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable, Optional

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
TIMEOUT_SECONDS = 5.0  # without a byte: aiohttp 3.10, the last for Python 3.8, waits so long after a PUT's reset
# What can happen to an answer.
FAULTS = ("503", "500", "reset", "truncated", "wrong bytes", "slow")
_SLOW_SECONDS = 0.3
# Fault of a request: (its number among the GETs, path) -> one of FAULTS, or None.
Choose = Callable[[int, str], Optional[str]]


def require() -> None:
    """Skips the tests of a module where the libraries are missing."""
    for library in ("s3fs", "moto", "flask"):
        pytest.importorskip(library, reason=f"{library} is not installed: bash init_tf.sh --storage --test")


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of an empty S3 server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from moto.server import main; main()"
    command = [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **KEYS})
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(1200):
        assert server.poll() is None, "the S3 server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the S3 server does not answer")


class FaultyProxy:
    """Passes requests on to a server.

    Of the GETs of objects, those that `choose` names a fault for have it, and of the PUTs those of `choose_put`: a body
    that is truncated on its way is stored so.
    """

    def __init__(self, server: str, choose: Choose = lambda number, path: None) -> None:
        self.reset(choose)
        proxy, upstream, lock = self, server.partition("://")[2], threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = None
                if self.command == "GET" and "list-type" not in self.path and self.path.count("/") > 1:
                    with lock:
                        fault = proxy.choose(proxy.num_gets, self.path)
                        proxy.num_gets += 1
                        proxy.faults.update([fault] if fault else [])
                if self.command == "PUT" and self.path.count("/") > 1:
                    with lock:
                        number = proxy.num_puts
                        proxy.num_puts += 1
                    fault = proxy.choose_put(number, self.path)
                    proxy.faults.update([fault] if fault else [])
                    if fault == "truncated":
                        body, fault = body[: len(body) // 2], None
                if fault == "slow":
                    time.sleep(_SLOW_SECONDS)
                if fault in ("500", "503"):
                    name = "SlowDown" if fault == "503" else "InternalError"
                    error = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
                    self.send(int(fault), {"Content-Type": "application/xml"}, error)
                    return
                if fault == "reset":
                    self.break_connection()
                    return
                connection = http.client.HTTPConnection(upstream, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                content = response.read()
                connection.close()
                if fault == "wrong bytes":
                    middle = len(content) // 2
                    content = content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]
                keep = {name: value for name, value in response.headers.items() if name.lower() not in _OF_A_CONNECTION}
                length = len(content) if self.command != "HEAD" else int(response.headers.get("Content-Length") or 0)
                if fault == "truncated":
                    content = content[: len(content) // 2]
                self.send(response.status, keep, content, length)
                if fault == "truncated":
                    self.break_connection()

            def send(self, status: int, headers: dict[str, str], content: bytes, length: Optional[int] = None) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                self.wfile.flush()

            def break_connection(self) -> None:
                # Closed with this option, a socket answers with RST.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self, choose: Choose = lambda number, path: None) -> FaultyProxy:
        """Begins to count anew."""
        self.choose = choose
        self.faults: Counter = Counter()  # that have happened
        self.num_gets = 0  # of objects
        self.choose_put: Choose = lambda number, path: None
        self.num_puts = 0
        return self

    def close(self) -> None:
        """Ends the proxy."""
        self._server.shutdown()
        self._server.server_close()


_OF_A_CONNECTION = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}
