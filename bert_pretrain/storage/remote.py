"""What is asked of a remote storage: list a directory, describe a file, read, write and remove one.

Every request is tried again after an error that may pass. A body is accepted only in the length that was asked for, and
what was written only in the length that was sent. OSError has the cause in one line as its strerror; ValueError says
that a library is missing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, Callable, Mapping, NamedTuple, Optional, TypeVar, Union

from bert_pretrain.system.files import ReportBytes, is_url, open_regular

T = TypeVar("T")

TRIES = 10  # of a read or a write: a minute and a half without an answer, beside what the tries take
TRIES_AT_START = 4  # of what is asked before training, where a wrong name or address should be told soon
TRIES_OF_WRONG_BYTES = 4  # then the file itself is damaged, not the transfer
FIRST_PAUSE_SECONDS = 0.25  # doubled after each try
_LONGEST_PAUSE_SECONDS = 30.0
_TIMEOUT_SECONDS = 30.0  # without a byte

_TOLD_FROM_TRY = 4
_SECONDS_BETWEEN_LINES = 30.0
_SHOWN = 200  # characters of a cause
_told_lock = threading.Lock()
_told_at = -_SECONDS_BETWEEN_LINES

_DOWNLOAD_PART_BYTES, _DOWNLOAD_THREADS = 8 << 20, 8
# Of a file in S3 that is written in parts, because it is twice as large; ten are in memory.
_UPLOAD_PART_BYTES, _TRIES_OF_UPLOAD_PART = 16 << 20, 5

# Libraries that init_tf.sh does not install: scheme -> package.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "hdfs": "pyarrow", "abfs": "adlfs", "az": "adlfs", "oss": "ossfs"}
_OWN_EXTRA = ("s3", "s3a", "memory")
_WITHOUT_DIRECTORIES = ("s3", "s3a", "gs", "gcs")
# What changes with the content of a file, as the storages call it.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "mtime", "modification_time", "LastModified", "created")
# Names of exceptions, of libraries that are not imported here, that another try cannot cure -> remedy.
_LASTING = {
    "NoCredentialsError": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure",
    "PartialCredentialsError": "credentials are incomplete; set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ProfileNotFound": "the profile in AWS_PROFILE does not exist",
    "ParamValidationError": "not a valid name of a bucket or an object",
    "DefaultCredentialsError": "no credentials; set GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth login",
}
_filesystem_lock = threading.Lock()


class RemoteFile(NamedTuple):
    """A file in a remote storage; `version` changes with its content."""

    url: str
    num_bytes: int
    version: str


RemoteFolder = Mapping[str, RemoteFile]  # by name
CountBytes = Callable[[int], None]


# --- What is there ---


def list_files(directory: str) -> list[RemoteFile]:
    """The files directly in a directory, by name. FileNotFoundError where there is none."""
    path = _split(directory)[1]
    listed = _request(directory, lambda system: system.ls(path.rstrip("/"), detail=True, refresh=True), at_start=True)
    own = path.rstrip("/").lstrip("/")
    files = [entry for entry in listed if entry["type"] == "file" and entry["name"].strip("/") != own]
    found = [_describe(f"{directory.rstrip('/')}/{os.path.basename(entry['name'])}", entry) for entry in files]
    return sorted(file for file in found if not file.url.endswith("/"))


def list_folder(url: str) -> RemoteFolder:
    """The files of a directory by name. FileNotFoundError where there is none, OSError where it cannot be listed."""
    return {os.path.basename(file.url): file for file in list_files(url)}


def list_folder_if_any(url: str) -> RemoteFolder:
    """The same, but none where the directory does not exist."""
    try:
        return list_folder(url)
    except FileNotFoundError:
        return {}


def describe_file(url: str, is_fresh: bool = False) -> RemoteFile:
    """Size and version of a file, as list_files found them; is_fresh asks again. FileNotFoundError without one."""

    def ask(system: Any) -> Mapping[str, Any]:
        if is_fresh:
            system.invalidate_cache()
        return system.info(_split(url)[1])

    entry = _request(url, ask, at_start=True)
    if entry["type"] != "file":
        raise IsADirectoryError(0, "a directory, not a file", url)
    return _describe(url, entry)


def _describe(url: str, entry: Mapping[str, Any]) -> RemoteFile:
    version = next((str(entry[key]) for key in _VERSION_KEYS if entry.get(key) is not None), "")
    return RemoteFile(url, int(entry["size"]), version.strip('"'))


# --- Reading ---


def read_range(
    url: str,
    begin: int,
    end: int,
    problem: Callable[[bytes], Optional[str]] = lambda content: None,
    at_start: bool = False,
) -> bytes:
    """Bytes begin:end of a file. problem(bytes) says what is wrong with a body, which is then read again."""

    def read(system: Any) -> bytes:
        content = system.cat_file(_split(url)[1], start=begin, end=end)
        if len(content) != end - begin:
            raise _WrongBytesError(f"{len(content)} bytes instead of {end - begin} from byte {begin}")
        wrong = problem(content)
        if wrong is not None:
            raise _WrongBytesError(wrong)
        return content

    return _request(url, read, at_start) if end > begin else b""


def read_small(url: str) -> bytes:
    """The whole content of a small file, which must not come from an older listing."""
    return _request(url, lambda system: system.cat_file(_split(url)[1]), at_start=True)


def read_path_or_url(path: str) -> Union[str, bytes]:
    """The content of a small file, local (as text) or remote. OSError where it cannot be read."""
    if is_url(path):
        return read_small(path)
    with open_regular(path) as file:
        return file.read()


def download_file(file: RemoteFile, path: str, count: CountBytes = lambda num_bytes: None) -> None:
    """Writes a remote file to a local path; count(bytes) is told of each part.

    OSError where it cannot be read or written, or was replaced meanwhile.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)

    def copy(begin: int) -> int:
        end = min(begin + _DOWNLOAD_PART_BYTES, file.num_bytes)
        rest = memoryview(read_range(file.url, begin, end))
        while rest:
            rest = rest[os.pwrite(descriptor, rest, end - len(rest)) :]
        return end - begin

    executor = ThreadPoolExecutor(_DOWNLOAD_THREADS)
    begins = range(0, file.num_bytes, _DOWNLOAD_PART_BYTES)
    try:
        for part in as_completed([executor.submit(copy, begin) for begin in begins]):
            count(part.result())
        os.fsync(descriptor)
    finally:
        executor.shutdown(wait=True)
        os.close(descriptor)
    if describe_file(file.url, is_fresh=True) != file:
        raise OSError(0, "the file was replaced while it was read; start again", file.url)


def byte_counter(what: str, total: int, report: ReportBytes) -> CountBytes:
    """What download_file tells, summed and reported as a part of `total` bytes."""
    done = 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        report(what, done, total)

    return count


# --- Writing ---


def write_file(url: str, path: str) -> None:
    """Writes a local file, which must not change meanwhile. An object storage shows it whole or not at all."""
    num_bytes, is_s3 = os.path.getsize(path), _split(url)[0] in ("s3", "s3a")
    options = {"chunksize": _UPLOAD_PART_BYTES} if is_s3 else {}
    tries_of_part = _TRIES_OF_UPLOAD_PART if is_s3 and num_bytes >= 2 * _UPLOAD_PART_BYTES else 1

    def put(system: Any, target: str) -> None:
        system.put_file(path, target, **options)

    _write(url, num_bytes, put, tries_of_part=tries_of_part)


def write_small(url: str, content: bytes, at_start: bool = False) -> None:
    """Writes a small file."""
    _write(url, len(content), lambda system, target: system.pipe_file(target, content), at_start)


def remove_file(url: str) -> None:
    """Removes a file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        _request(url, lambda system: system.rm_file(_split(url)[1]))


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
            raise _WrongBytesError(f"{found} bytes were written instead of {num_bytes}")

    _request(url, request, at_start, tries_of_part)


# --- Requests that are tried again ---


class _WrongBytesError(Exception):
    """A body that is not what was asked for; its text says why."""


def _request(url: str, request: Callable[[Any], T], at_start: bool = False, tries_of_part: int = 1) -> T:
    """request(file system), tried again with growing pauses; a line on stderr names URL and cause once it takes long.

    FileNotFoundError and PermissionError, at once, and OSError otherwise; strerror is the cause in one line.
    """
    system = _filesystem(url, tries_of_part)
    import tenacity

    most = TRIES_AT_START if at_start else TRIES
    # 0.75 to 1.25 of a pause that doubles, else all threads and ranks try at the same moment.
    fixed = tenacity.wait_exponential(0.75 * FIRST_PAUSE_SECONDS, 0.75 * _LONGEST_PAUSE_SECONDS)
    random = tenacity.wait_random_exponential(0.5 * FIRST_PAUSE_SECONDS, 0.5 * _LONGEST_PAUSE_SECONDS)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and _lasting(error) is None),
        stop=lambda state: state.attempt_number >= _most_tries(_error_of(state.outcome), most),
        wait=fixed + random,
        before_sleep=lambda state: _tell(url, _error_of(state.outcome), state.attempt_number, most),
    )
    try:
        return retrying(request, system)
    except tenacity.RetryError as failed:
        last = failed.last_attempt
        told = f"{last.attempt_number} tries failed, the last with: {_cause(_error_of(last))}"
        raise OSError(errno.EIO, told, url) from None
    except Exception as error:
        raise (_lasting(error) or error) from None


def _error_of(attempt: Optional[Future[Any]]) -> BaseException:
    """What a try that failed raised."""
    error = attempt.exception() if attempt else None
    assert error is not None, "only a try that failed is asked"
    return error


def _most_tries(error: BaseException, most: int) -> int:
    return min(most, TRIES_OF_WRONG_BYTES) if isinstance(error, _WrongBytesError) else most


def _lasting(error: Exception) -> Optional[OSError]:
    """The error for the user where another try cannot help, else None."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file or directory in the storage")
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, f"access denied: {_cause(error)}")
    remedy = _LASTING.get(type(error).__name__)
    return None if remedy is None else PermissionError(errno.EACCES, remedy)


def _cause(error: BaseException) -> str:
    """What an exception says, in one line; the exception that caused it says more than the library's own."""
    told = [error]
    while told[-1].__cause__ is not None and len(told) < 5:
        told.append(told[-1].__cause__)
    text = next((text for one in told if (text := " ".join((getattr(one, "strerror", None) or str(one)).split()))), "")
    return (text or type(error).__name__)[:_SHOWN]


def _tell(url: str, error: BaseException, number: int, most: int) -> None:
    """Many threads have the same trouble, and one of them tells it."""
    global _told_at
    with _told_lock:
        is_due = number >= _TOLD_FROM_TRY and time.monotonic() > _told_at + _SECONDS_BETWEEN_LINES
        if is_due:
            _told_at = time.monotonic()
    if is_due:
        print(f"warning: {url}: try {number} of {most} failed: {_cause(error)}; trying again", file=sys.stderr)


# --- fsspec ---


def _split(url: str) -> tuple[str, str]:
    """'s3://bucket/a' -> 's3', and the path as fsspec takes it, which keeps the host of hdfs://host:port/a."""
    scheme, _, path = url.partition("://")
    return scheme.lower(), path if scheme.lower() in ("s3", "s3a", "gs", "gcs") else url


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
        import tenacity  # noqa: F401 (for _request)
    except ImportError as error:
        missing = f"{scheme}:// needs {error.name}, which is not installed; run: bash init_tf.sh --storage"
        raise ValueError(missing) from None
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # The tries are _request's: each library's own would multiply them. But of a file in many parts one would fail
        # at each try of the whole.
        limits = {"connect_timeout": _TIMEOUT_SECONDS, "read_timeout": _TIMEOUT_SECONDS, "max_pool_connections": 64}
        options["config_kwargs"] = {"retries": {"total_max_attempts": tries_of_part, "mode": "standard"}, **limits}
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
