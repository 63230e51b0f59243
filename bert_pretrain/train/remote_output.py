"""An output_dir that is a URL: the run works in a local directory, and rank 0 uploads what it writes.

A start takes the local directory where that is as new as the remote one, else it fetches the newest checkpoint and the
files beside it. Checkpoints are uploaded in the background, as hard links that stay while the run removes old ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Optional, Tuple

from bert_pretrain.config.training import Config, RunConfig
from bert_pretrain.distributed import long_task
from bert_pretrain.distributed.long_task import Report
from bert_pretrain.distributed.world import World
from bert_pretrain.storage import remote, remote_lock
from bert_pretrain.storage.remote_lock import RemoteLock
from bert_pretrain.storage.uploader import Upload, Uploader
from bert_pretrain.system import files
from bert_pretrain.train import checkpoint_files, remote_checkpoints, remote_start
from bert_pretrain.train.checkpoint_writer import BEST

_STAGE = ".uploads"  # of what waits for its upload
Stamp = Tuple[int, int]  # size and time of change


def default_directory(url: str) -> str:
    """Where a run with this output_dir works unless --local_output_dir says it."""
    name = f"{url.rpartition('/')[2]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    return str(files.cache_directory("runs") / name)


def open_output(config: Config, world: World) -> Optional[RemoteOutput]:
    """The remote directory on rank 0 where --output_dir is a URL, else None. A collective.

    ValueError, one line, where it is in use or cannot be read or written.
    """

    def act(report: Report) -> Optional[RemoteOutput]:
        if not (config.output_url and world.is_root):
            return None
        output = RemoteOutput(config.output_url, config.run)
        output.open(report)
        return output

    return long_task.on_all_ranks(world, act)


def finish(output: Optional[RemoteOutput], config: Config, world: World) -> int:
    """Waits until all is uploaded. Returns the exit code, 1 where something is not. A collective."""
    if not config.output_url:
        return 0
    is_whole = long_task.on_all_ranks(world, lambda report: output.finish() if output else True)
    return 0 if world.broadcast(is_whole) else 1


class RemoteOutput:
    """The remote directory of a run, on rank 0. A job that trains holds its lock from open() until release()."""

    def __init__(self, url: str, run: RunConfig) -> None:
        """run.output_dir is the local directory, which this job alone uses where it trains."""
        self._url, self._run, self._directory = url, run, run.output_dir
        self._held: dict[str, list[str]] = {}  # names of remote checkpoints, oldest first; by folder
        self._uploaded: dict[str, Stamp] = {}  # files beside the checkpoints
        self._lock: Optional[RemoteLock] = None
        self._uploader = Uploader(lambda line: print(line, file=sys.stderr, flush=True))

    def open(self, report: Report) -> None:
        """Takes the lock, and makes the local directory as new as the remote one. ValueError, one line."""
        if self._run.do_train:
            shutil.rmtree(os.path.join(self._directory, _STAGE), ignore_errors=True)
            self._lock = RemoteLock(self._url, _place(self._directory), partial(print, flush=True))
        try:
            start = remote_start.synchronize(self._url, self._directory, report)
            if self._run.do_train:
                remote_checkpoints.remove(self._url, [])
        except (OSError, ValueError) as error:
            self.release()
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"--output_dir: {self._url} cannot be fetched ({error.strerror})") from None
        self._held = {".": start.held, BEST: start.held_best}
        if not self._run.do_train:
            self._uploaded = dict(self._side_files())
        elif start.not_there:
            self.on_written(start.not_there)

    def on_written(self, prefix: str) -> None:
        """Uploads a checkpoint that is whole; returns at once. Called for those in best/, too."""
        directory, name = os.path.split(prefix)
        kind = os.path.relpath(directory, self._directory)
        what = f"{self._url}: checkpoint {os.path.normpath(os.path.join(kind, name))}"
        stage = os.path.join(self._directory, _STAGE, f"{kind}-{name}")
        discard = partial(shutil.rmtree, stage, ignore_errors=True)
        try:
            checkpoint_files.link(prefix, os.path.join(stage, name))
        except OSError as error:
            self._uploader.fail(kind, what, error)
            return
        self._uploader.submit(kind, Upload(what, partial(self._upload, os.path.join(stage, name), kind), discard))

    def finish(self) -> bool:
        """Uploads what is left and waits for it. False, after a line on stderr, where that failed."""
        if not self._run.do_train and (found := self._job_there()):
            print(f"note: results are in {self._directory} alone: {found} trains in {self._url}", flush=True)
            return True
        upload = Upload(f"{self._url}: the files of the run", self._upload_side_files, lambda: None)
        self._uploader.submit("files", upload)
        problem = self._uploader.finish()
        if problem is None:
            print(f"output_dir: {self._url} has all that the run wrote", flush=True)
            return True
        remedy = f"it is in {self._directory}, and the same command on this machine uploads it"
        print(f"error: {problem}; {remedy}", file=sys.stderr, flush=True)
        return False

    def release(self) -> None:
        """Lets another job in."""
        if self._lock:
            self._lock.release()

    def _job_there(self) -> Optional[str]:
        with contextlib.suppress(OSError):
            found = remote_lock.holder(self._url)
            return remote_lock.describe(found) if found else None
        return None

    def _upload(self, prefix: str, kind: str) -> None:
        """On the uploader's thread: the files that are there by now, then the checkpoint."""
        self._upload_side_files()
        url = self._url if kind == "." else f"{self._url}/{kind}"
        most = self._run.keep_checkpoint_max if kind == "." else 1
        self._held[kind] = remote_checkpoints.upload(prefix, url, self._held[kind], most, self._check_lock)

    def _check_lock(self) -> None:
        if self._lock and self._lock.is_lost:
            raise OSError(0, f"another job has taken {self._url}/{remote_lock.NAME}")

    def _upload_side_files(self) -> None:
        """Uploads the files that have changed since; those that were removed are removed there, too."""
        self._check_lock()
        present = dict(self._side_files())
        copy = os.path.join(self._directory, _STAGE, "file")  # files grow while they are uploaded
        for name, stamp in present.items():
            if self._uploaded.get(name) != stamp:
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                shutil.copyfile(os.path.join(self._directory, name), copy)
                remote.write_file(f"{self._url}/{name}", copy)
                self._uploaded[name] = stamp
        for name in set(self._uploaded) - set(present):
            remote.remove(f"{self._url}/{name}")
            del self._uploaded[name]

    def _side_files(self) -> Iterator[tuple[str, Stamp]]:
        """Names and stamps of all files but hidden ones and checkpoints."""
        for folder, folders, names in os.walk(self._directory):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith(".") and not remote_checkpoints.is_of_checkpoint(name):
                    path = os.path.join(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(path)
                        yield os.path.relpath(path, self._directory), (found.st_size, found.st_mtime_ns)


def _place(directory: str) -> str:
    """A name of a local directory that none of another machine or container has."""
    found, kernel = os.stat(directory), socket.gethostname()
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        kernel = file.read().strip()
    return f"{kernel}:{found.st_dev}:{found.st_ino}"
