"""An S3 server with a bucket, seen through a proxy that can inject errors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from bert_pretrain.storage import remote, remote_lock
from tests.storage import servers


@pytest.fixture(scope="package")
def proxied_server() -> Iterator[servers.FaultyProxy]:
    """The server as this process and its children see it by AWS_ENDPOINT_URL."""
    with servers.s3_server() as address, pytest.MonkeyPatch.context() as patch:
        proxy = servers.FaultyProxy(address)
        for name, value in {**servers.KEYS, "AWS_ENDPOINT_URL": proxy.address}.items():
            patch.setenv(name, value)
        patch.setattr(remote, "_TIMEOUT_SECONDS", servers.TIMEOUT_SECONDS)
        _forget_connections()
        yield proxy
        _forget_connections()
        proxy.close()


@pytest.fixture
def proxy(proxied_server: servers.FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.FaultyProxy]:
    """The proxy, which injects no error yet, and short pauses between tries and before a lock is taken."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(remote_lock, "_SETTLE_SECONDS", 0.1)
    yield proxied_server.reset()
    proxied_server.reset()


@pytest.fixture
def bucket(proxy: servers.FaultyProxy) -> str:
    """The URL of a new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    _filesystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def put(bucket: str) -> Any:
    """put(key, content) writes an object and returns its URL."""

    def put(key: str, content: bytes) -> str:
        _filesystem().pipe_file(f"{bucket[5:]}/{key}", content)
        return f"{bucket}/{key}"

    return put


def _filesystem() -> Any:
    return remote._filesystem("s3://any")


def _forget_connections() -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    remote._make_filesystem.cache_clear()
