"""The offsets of a shard's records, kept in the cache folder so that a shard is scanned once.

A table is a file: CRC-32C of the offsets (uint64), then the offset of each record and, last, the end of the shard, as
uint32 where the shard is below 4 GiB and as int64 elsewhere; all little-endian. Its name is a hash of what the shard
is: size, modification time and contents of both ends, and of a remote one URL, size and version (an ETag, for
example). So hosts that share a cache folder but have other data under the same path have tables of their own, and a
shard that was replaced is scanned again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import socket
import weakref
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import offsets
from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import atomic_write, cache_directory, open_regular

_VERSION = 2
_END_BYTES = 4096  # of the shard, at each end, that its identity covers
_HEAD = np.dtype("<u8")
_SMALLEST_MAP = 64 << 10  # bytes; a smaller table is read
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# Python's mmap keeps a file descriptor for as long as the map exists, which would be one for each shard.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Identity(NamedTuple):
    """What a shard is, whatever its path."""

    key: str
    num_bytes: int


def folder() -> Path:
    """Where the tables are."""
    return cache_directory("index")


def identify(path: str) -> Identity:
    """The identity of a shard. OSError where it cannot be read."""
    with open_regular(path, "rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        ends = [os.pread(file.fileno(), _END_BYTES, at) for at in (0, max(0, state.st_size - _END_BYTES))]
    facts = f"{_VERSION} {state.st_size} {state.st_mtime_ns} ".encode()
    return Identity(hashlib.sha256(facts + b"".join(ends)).hexdigest()[:40], state.st_size)


def identify_remote(file: RemoteFile) -> Identity:
    """The identity of a shard in a remote storage."""
    facts = f"{_VERSION} {file.url} {file.num_bytes} {file.version}".encode()
    return Identity(hashlib.sha256(facts).hexdigest()[:40], file.num_bytes)


def scan(path: str, report: Callable[[int], None] = lambda done: None) -> tuple[Identity, np.ndarray]:
    """A shard's identity and, from offsets.scan, its offsets. ValueError if it changes meanwhile."""
    shard = identify(path)
    found = offsets.scan(path, report)
    if identify(path) != shard:
        raise ValueError(f"{path}: changed while it was indexed; start again when nothing writes to it")
    return shard, found


def read(shard: Identity) -> Optional[np.ndarray]:
    """[N+1] uint32 or int64: a shard's table, whose pages all processes share; None where it is missing or damaged.

    OSError where this process has no descriptor or memory left: to scan the shard would be no remedy.
    """
    try:
        with open_regular(str(_path(shard)), "rb", buffering=0) as file:
            content = _contents(file.fileno(), os.fstat(file.fileno()).st_size)
        table = content[_HEAD.itemsize :].view(_dtype(shard))
        crc = content[: _HEAD.itemsize].view(_HEAD)
    except OSError as error:
        if error.errno in _OUT_OF:
            raise
        return None
    except ValueError:  # not a whole number of entries
        return None
    is_sound = len(table) and table[-1] == shard.num_bytes and crc[0] == _crc(shard, table)
    return table if is_sound else None


def keep(shard: Identity, table: np.ndarray) -> None:
    """Writes a table, complete or not at all. OSError if it cannot be written."""
    path, own = _path(shard), f"{_path(shard)}.{socket.gethostname()}.{os.getpid()}"
    compact = table.astype(_dtype(shard))
    with atomic_write(own, "wb") as file:
        file.write(np.array([_crc(shard, compact)], _HEAD).tobytes())
        file.write(compact.tobytes())
    # A rename would replace a table that another host just wrote and mapped; on NFS its pages would be lost.
    try:
        os.link(own, path)
    except OSError:
        if read(shard) is None:
            os.replace(own, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(own)


def forget(shard: Identity) -> None:
    """Removes a table that proved to be another shard's."""
    _path(shard).unlink(missing_ok=True)


def _path(shard: Identity) -> Path:
    return folder() / shard.key


def _dtype(shard: Identity) -> np.dtype:
    return np.dtype("<u4" if shard.num_bytes < 1 << 32 else "<i8")


def _crc(shard: Identity, table: np.ndarray) -> int:
    return crc32c(table.data, crc32c(shard.key.encode()))


def _contents(number: int, size: int) -> np.ndarray:
    """[size] uint8: the bytes of an open file, mapped where that is worthwhile and possible."""
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, number, 0) if size >= _SMALLEST_MAP else None
    if address in (None, ctypes.c_void_p(-1).value):
        return np.frombuffer(os.pread(number, size, 0), np.uint8)
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False  # other threads may still read it then
    array = np.frombuffer(memory, np.uint8)
    array.flags.writeable = False
    return array
