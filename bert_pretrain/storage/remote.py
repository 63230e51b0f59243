"""What is asked of a remote storage: list a directory, describe a file, read a range.

Every request is tried again (retry.py). A body is accepted only in the length that was asked for. OSError has the
cause in one line as its strerror; ValueError says that a library is missing.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from bert_pretrain.storage import retry

_TIMEOUT_SECONDS = 30.0  # without a byte
# Libraries that init_tf.sh does not install: scheme -> package.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "hdfs": "pyarrow", "abfs": "adlfs", "az": "adlfs", "oss": "ossfs"}
_OWN_EXTRA = ("s3", "s3a", "memory")
# What changes with the content of a file, as the storages call it.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "mtime", "modification_time", "LastModified", "created")
_filesystem_lock = threading.Lock()


class RemoteFile(NamedTuple):
    """A file in a remote storage; `version` changes with its content."""

    url: str
    num_bytes: int
    version: str


def list_files(directory: str) -> list[RemoteFile]:
    """The files directly in a directory, by name. FileNotFoundError where there is none."""
    path = _split(directory)[1]
    listed = _call(directory, lambda system: system.ls(path.rstrip("/"), detail=True, refresh=True), at_start=True)
    own = path.rstrip("/").lstrip("/")
    files = [entry for entry in listed if entry["type"] == "file" and entry["name"].strip("/") != own]
    found = [_describe(f"{directory.rstrip('/')}/{os.path.basename(entry['name'])}", entry) for entry in files]
    return sorted(file for file in found if not file.url.endswith("/"))


def describe(url: str, is_fresh: bool = False) -> RemoteFile:
    """Size and version of a file, as list_files found them; is_fresh asks again. FileNotFoundError without one."""

    def ask(system: Any) -> Mapping[str, Any]:
        if is_fresh:
            system.invalidate_cache()
        return system.info(_split(url)[1])

    entry = _call(url, ask, at_start=True)
    if entry["type"] != "file":
        raise IsADirectoryError(0, "a directory, not a file", url)
    return _describe(url, entry)


def read_range(
    url: str, begin: int, end: int, problem: Callable[[bytes], Optional[str]] = lambda content: None, at_start=False
) -> bytes:
    """Bytes begin:end of a file. problem(bytes) says what is wrong with a body, which is then read again."""

    def read(system: Any) -> bytes:
        content = system.cat_file(_split(url)[1], start=begin, end=end)
        if len(content) != end - begin:
            raise retry.WrongBytesError(f"{len(content)} bytes instead of {end - begin} from byte {begin}")
        wrong = problem(content)
        if wrong is not None:
            raise retry.WrongBytesError(wrong)
        return content

    return _call(url, read, at_start) if end > begin else b""


def read_small(url: str) -> bytes:
    """The whole content of a small file, which must not come from an older listing."""
    return _call(url, lambda system: system.cat_file(_split(url)[1]), at_start=True)


def _describe(url: str, entry: Mapping[str, Any]) -> RemoteFile:
    version = next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key) is not None), "")
    return RemoteFile(url, int(entry["size"]), version.strip('"'))


def _split(url: str) -> tuple[str, str]:
    """'s3://bucket/a' -> 's3', and the path as fsspec takes it, which keeps the host of hdfs://host:port/a."""
    scheme, _, path = url.partition("://")
    return scheme.lower(), path if scheme.lower() in ("s3", "s3a", "gs", "gcs") else url


def _call(url: str, request: Callable[[Any], Any], at_start: bool = False) -> Any:
    system = _filesystem(url)
    tries = retry.TRIES_AT_START if at_start else retry.TRIES
    return retry.call(url, lambda: request(system), tries)


def _filesystem(url: str) -> Any:
    """fsspec's file system of a URL's scheme. ValueError, one line, where a library is missing."""
    scheme, path = _split(url)
    if not path.strip("/"):
        raise ValueError(f"{url}: names no bucket or host; give {scheme}://bucket/directory")
    host = url.partition("://")[2].partition("/")[0] if scheme not in _OWN_EXTRA else ""
    with _filesystem_lock:  # fsspec's import and its instances are shared by all threads
        return _make_filesystem(scheme, host)


@functools.lru_cache(maxsize=None)
def _make_filesystem(scheme: str, host: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{scheme}:// needs fsspec, which is not installed; run: bash init_tf.sh --storage") from None
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # The tries are retry.py's: each library's own would multiply them.
        limits = {"connect_timeout": _TIMEOUT_SECONDS, "read_timeout": _TIMEOUT_SECONDS, "max_pool_connections": 64}
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, **limits}
    elif scheme == "hdfs":
        name, _, port = host.partition(":")
        options = {"host": name or "default", **({"port": int(port)} if port else {})}
    try:
        system = fsspec.filesystem(scheme, **options)
    except ImportError:
        package = _PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else "bash init_tf.sh --storage"
        raise ValueError(f"{scheme}:// needs a library that is not installed; run: {remedy}") from None
    except ValueError:
        raise ValueError(f"{scheme}:// is no storage that fsspec knows; give s3://, gs:// or hdfs://") from None
    if hasattr(system, "retries"):
        system.retries = 1
    return system
