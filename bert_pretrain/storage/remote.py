"""What is asked of a remote storage: list a directory, describe a file, read a range, write and remove a file.

Every request is tried again (retry.py). A body is accepted only in the length that was asked for, and what was written
only in the length that was sent. OSError has the cause in one line as its strerror; ValueError says that a library is
missing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Mapping, NamedTuple, Optional, Union

from bert_pretrain.storage import retry
from bert_pretrain.system.files import is_url, open_regular

_TIMEOUT_SECONDS = 30.0  # without a byte
# Libraries that init_tf.sh does not install: scheme -> package.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "hdfs": "pyarrow", "abfs": "adlfs", "az": "adlfs", "oss": "ossfs"}
_OWN_EXTRA = ("s3", "s3a", "memory")
_WITHOUT_DIRECTORIES = ("s3", "s3a", "gs", "gcs")
_PART_BYTES = 16 << 20  # of a file in S3 that is written in parts, because it is twice as large; ten are in memory
_TRIES_OF_PART = 5
# What changes with the content of a file, as the storages call it.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "mtime", "modification_time", "LastModified", "created")
_filesystem_lock = threading.Lock()


class RemoteFile(NamedTuple):
    """A file in a remote storage; `version` changes with its content."""

    url: str
    num_bytes: int
    version: str


Folder = Mapping[str, RemoteFile]  # by name


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


def open_folder(url: str) -> Folder:
    """The files of a directory by name. FileNotFoundError where there is none, OSError where it cannot be listed."""
    return {os.path.basename(file.url): file for file in list_files(url)}


def list_folder(url: str) -> Folder:
    """The same, but none where the directory does not exist."""
    try:
        return open_folder(url)
    except FileNotFoundError:
        return {}


def write_file(url: str, path: str) -> None:
    """Writes a local file, which must not change meanwhile. An object storage shows it whole or not at all."""
    num_bytes, is_s3 = os.path.getsize(path), _split(url)[0] in ("s3", "s3a")
    options = {"chunksize": _PART_BYTES} if is_s3 else {}
    tries_of_part = _TRIES_OF_PART if is_s3 and num_bytes >= 2 * _PART_BYTES else 1

    def put(system: Any, target: str) -> None:
        system.put_file(path, target, **options)

    _write(url, num_bytes, put, tries_of_part=tries_of_part)


def write_small(url: str, content: bytes, at_start: bool = False) -> None:
    """Writes a small file."""
    _write(url, len(content), lambda system, target: system.pipe_file(target, content), at_start)


def remove(url: str) -> None:
    """Removes a file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        _call(url, lambda system: system.rm_file(_split(url)[1]))


def _write(
    url: str, num_bytes: int, write: Callable[[Any, str], Any], at_start: bool = False, tries_of_part: int = 1
) -> None:
    scheme, target = _split(url)

    def request(system: Any) -> None:
        if scheme not in _WITHOUT_DIRECTORIES:
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
        write(system, target)
        system.invalidate_cache()
        found = int(system.info(target)["size"])
        if found != num_bytes:
            raise retry.WrongBytesError(f"{found} bytes were written instead of {num_bytes}")

    _call(url, request, at_start, tries_of_part)


def _describe(url: str, entry: Mapping[str, Any]) -> RemoteFile:
    version = next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key) is not None), "")
    return RemoteFile(url, int(entry["size"]), version.strip('"'))


def _split(url: str) -> tuple[str, str]:
    """'s3://bucket/a' -> 's3', and the path as fsspec takes it, which keeps the host of hdfs://host:port/a."""
    scheme, _, path = url.partition("://")
    return scheme.lower(), path if scheme.lower() in ("s3", "s3a", "gs", "gcs") else url


def _call(url: str, request: Callable[[Any], Any], at_start: bool = False, tries_of_part: int = 1) -> Any:
    system = _filesystem(url, tries_of_part)
    tries = retry.TRIES_AT_START if at_start else retry.TRIES
    return retry.call(url, lambda: request(system), tries)


def _filesystem(url: str, tries_of_part: int = 1) -> Any:
    """fsspec's file system of a URL's scheme. ValueError, one line, where a library is missing."""
    scheme, path = _split(url)
    if not path.strip("/"):
        raise ValueError(f"{url}: names no bucket or host; give {scheme}://bucket/directory")
    host = url.partition("://")[2].partition("/")[0] if scheme not in _OWN_EXTRA else ""
    with _filesystem_lock:  # fsspec's import and its instances are shared by all threads
        return _make_filesystem(scheme, host, tries_of_part)


@functools.lru_cache(maxsize=None)
def _make_filesystem(scheme: str, host: str, tries_of_part: int) -> Any:
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{scheme}:// needs fsspec, which is not installed; run: bash init_tf.sh --storage") from None
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # The tries are retry.py's: each library's own would multiply them. But of a file in many parts one would fail
        # at each try of the whole.
        limits = {"connect_timeout": _TIMEOUT_SECONDS, "read_timeout": _TIMEOUT_SECONDS, "max_pool_connections": 64}
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": tries_of_part, "mode": "standard"},
            **limits,
        }
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


def read_contents(path: str) -> Union[str, bytes]:
    """The content of a small file beside shards, which may be a URL. OSError where it cannot be read."""
    if is_url(path):
        return read_small(path)
    with open_regular(path) as file:
        return file.read()
