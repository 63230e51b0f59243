"""An output_dir that is a URL: the run works in a local directory, and rank 0 uploads what it writes.

A start takes the local directory where that is as new as the remote one, else it fetches the newest checkpoint and the
files beside it. Checkpoints are uploaded in the background, as hard links that stay while the run removes old ones. A
remote checkpoint counts once its `.index` is there, which is written after its data; the file `checkpoint` follows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Callable, NamedTuple, Optional, Tuple

from bert_pretrain.checkpoints import checkpoint_files, restore
from bert_pretrain.checkpoints.checkpoint_files import step_in_name
from bert_pretrain.checkpoints.writer import BEST
from bert_pretrain.config.training import Config, RunConfig
from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.world import World
from bert_pretrain.storage import remote, remote_lock
from bert_pretrain.storage.remote import RemoteFile, RemoteFolder
from bert_pretrain.storage.remote_lock import RemoteLock
from bert_pretrain.storage.uploader import Upload, Uploader
from bert_pretrain.system import files
from bert_pretrain.system.console import log
from bert_pretrain.system.files import ReportBytes
from bert_pretrain.system.locks import name_holder

_OF_CHECKPOINT = re.compile(r"(.+)\.(index|data-\d+-of-(\d+))")
_PROBE = ".writable"
_STAGE = ".uploads"  # of what waits for its upload
Stamp = Tuple[int, int]  # size and time of change


def is_of_checkpoint(name: str) -> bool:
    """True for the names of a run's checkpoints' files, and for the file `checkpoint`."""
    match = _OF_CHECKPOINT.fullmatch(name)
    return name == checkpoint_files.STATE_FILE or (match is not None and checkpoint_files.step_in_name(match[1]) >= 0)


def whole_checkpoints(folder: RemoteFolder) -> list[str]:
    """The names of a run's whole checkpoints, the newest last."""
    found = {name[: -len(".index")] for name in folder if name.endswith(".index")}
    whole = [name for name in found if checkpoint_files.step_in_name(name) >= 0 and len(_files_of(folder, name)) > 1]
    return sorted(whole, key=checkpoint_files.step_in_name)


def listed_checkpoints(folder: RemoteFolder) -> list[str]:
    """The names that the file `checkpoint` of a remote directory lists."""
    state = folder.get(checkpoint_files.STATE_FILE)
    text = remote.read_small(state.url).decode(errors="replace") if state else ""
    return re.findall(r'^all_model_checkpoint_paths: "(.+)"$', text, re.MULTILINE)


def fetch_checkpoint(folder: RemoteFolder, name: str, directory: str, count: remote.CountBytes) -> None:
    """Fetches a checkpoint, which appears whole. ValueError where it is damaged, OSError where it cannot be read."""
    with checkpoint_files.publishing(os.path.join(directory, name)) as prefix:
        for file in _files_of(folder, name):
            remote.download_file(file, prefix + os.path.basename(file.url)[len(name) :], count)
        restore.open_whole(prefix, "output_dir")


def checkpoint_bytes(folder: RemoteFolder, name: str) -> int:
    """The size of a checkpoint."""
    return sum(file.num_bytes for file in _files_of(folder, name))


def upload_checkpoint(prefix: str, url: str, held: Sequence[str], most: int, check: Callable[[], None]) -> list[str]:
    """Uploads a local checkpoint, then removes the oldest of `held` so that `most` stay (0: all). Returns those.

    held: names of the run's remote checkpoints, oldest first. check() raises OSError where the directory is another's.
    """
    name = os.path.basename(prefix)
    if name in held:  # an old index must not stand beside new data
        remote.remove_file(f"{url}/{name}.index")
    for path in checkpoint_files.data_files(prefix):
        remote.write_file(f"{url}/{os.path.basename(path)}", path)
    check()
    remote.write_file(f"{url}/{name}.index", f"{prefix}.index")
    new = [*(one for one in held if one != name), name]
    num_old = max(0, len(new) - (most or len(new)))
    old, new = new[:num_old], new[num_old:]
    remote.write_small(f"{url}/{checkpoint_files.STATE_FILE}", checkpoint_files.state_text(new).encode())
    remove_checkpoints(url, old)
    return new


def remove_checkpoints(url: str, old: Sequence[str]) -> None:
    """Removes checkpoints, the index first, and what a killed job left of one that it was uploading."""
    folder = remote.list_folder_if_any(url)
    for name in old:
        for file in _files_of(folder, name):
            remote.remove_file(file.url)
    for name, file in folder.items():
        match = _OF_CHECKPOINT.fullmatch(name)
        if match and match[3] and checkpoint_files.step_in_name(match[1]) >= 0 and f"{match[1]}.index" not in folder:
            remote.remove_file(file.url)


def _files_of(folder: RemoteFolder, prefix: str) -> list[RemoteFile]:
    """A checkpoint's files, the index first; none unless all of them are there."""
    matches = [match for match in map(_OF_CHECKPOINT.fullmatch, folder) if match and match[1] == prefix and match[3]]
    if f"{prefix}.index" not in folder or not matches or len(matches) != int(matches[0][3]):
        return []
    return [folder[f"{prefix}.index"], *(folder[name] for name in sorted(match[0] for match in matches))]


class RemoteStart(NamedTuple):
    """What the two directories hold of a run."""

    held: list[str]  # names of the run's remote checkpoints, oldest first
    held_best: list[str]  # of those in best/
    not_there: Optional[str]  # prefix of the newest checkpoint, where only the local directory has it


def synchronize(url: str, directory: str, report: ReportBytes) -> RemoteStart:
    """Makes a local directory as new as a remote one, and prints which of them the run goes on with.

    OSError where the remote one cannot be read; ValueError where it holds checkpoints and none is whole.
    """
    folder, best, here = remote.list_folder_if_any(url), remote.list_folder_if_any(f"{url}/{BEST}"), _newest(directory)
    whole = whole_checkpoints(folder)
    there = [name for name in listed_checkpoints(folder) if name in whole]
    step = step_in_name(here) if here else -1
    newer = [name for name in reversed(there) if step_in_name(name) > step]
    wanted = newer if here else dict.fromkeys([*newer, *reversed(whole)])
    fetched = _fetch_first(url, folder, wanted, directory, report)
    if fetched or not here:
        _fetch_side_files(folder, best, directory)
    log.info(f"output_dir: {_description(url, directory, here, fetched, there)}")
    prefix = os.path.join(directory, fetched) if fetched else here
    is_own = prefix is not None and restore.holds_run(prefix)  # else a published checkpoint, which stays
    only_here = here if here and not fetched and os.path.basename(here) not in there else None
    return RemoteStart(there if is_own else [], whole_checkpoints(best), only_here)


def _description(url: str, directory: str, here: Optional[str], fetched: str, there: list[str]) -> str:
    if fetched:
        return f"{fetched} of {url} is fetched to {directory}, which has {'older ones' if here else 'no checkpoint'}"
    newest = there[-1] if there else "no checkpoint"
    return f"{here} is the newest, {url} has {newest}" if here else f"{url} has {newest}; the run works in {directory}"


def _newest(directory: str) -> Optional[str]:
    """The newest whole checkpoint of the run in a local directory; a published one is not the run's."""
    try:
        found = restore.find_newest(directory) if os.path.isdir(directory) else restore.NewestCheckpoint()
    except ValueError:  # none is whole; a remote one may be
        return None
    return found.prefix if found.is_own else None


def _fetch_first(url: str, folder: RemoteFolder, wanted: Iterable[str], directory: str, report: ReportBytes) -> str:
    """The name of the first checkpoint that is whole, which then is the newest here; empty where none is wanted."""
    problems = []
    for name in wanted:
        total = checkpoint_bytes(folder, name)
        try:
            fetch_checkpoint(folder, name, directory, remote.byte_counter(f"fetching {name}", total, report))
        except ValueError as error:
            problems.append(str(error).partition(": ")[2])
            continue
        _list_as_newest(directory, name)
        return name
    if problems:
        raise ValueError(f"--output_dir: no checkpoint in {url} is whole: {'; '.join(problems)}; remove them there")
    return ""


def _list_as_newest(directory: str, name: str) -> None:
    steps = {prefix: step_in_name(prefix) for prefix in checkpoint_files.prefixes(directory)}
    older = sorted((prefix for prefix, step in steps.items() if 0 <= step < step_in_name(name)), key=steps.__getitem__)
    checkpoint_files.write_state(directory, [*older, os.path.join(directory, name)])


def _fetch_side_files(folder: RemoteFolder, best: RemoteFolder, directory: str) -> None:
    """Fetches the files beside the checkpoints, and best/, so that a later evaluation is compared with it."""
    for name, file in folder.items():
        if not is_of_checkpoint(name) and name != remote_lock.LOCK_NAME:
            _fetch_file(file, os.path.join(directory, name))
    best_directory = os.path.join(directory, BEST)
    for name in whole_checkpoints(best)[-1:]:
        fetch_checkpoint(best, name, best_directory, lambda num_bytes: None)
        checkpoint_files.write_state(best_directory, [os.path.join(best_directory, name)])
    for name, file in best.items():
        if not is_of_checkpoint(name):
            _fetch_file(file, os.path.join(best_directory, name))


def _fetch_file(file: RemoteFile, path: str) -> None:
    with files.atomic_write(path, "wb") as output:
        remote.download_file(file, output.name)


def default_output_directory(url: str) -> str:
    """Where a run with this output_dir works unless --local_output_dir says it."""
    name = f"{url.rpartition('/')[2]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    return str(files.cache_directory("runs") / name)


def open_output(config: Config, world: World) -> Optional[RemoteOutput]:
    """The remote directory on rank 0 where --output_dir is a URL, else None. A collective.

    ValueError, one line, where it is in use or cannot be read or written.
    """

    def act(report: ReportBytes) -> Optional[RemoteOutput]:
        if not (config.output_url and world.is_root):
            return None
        output = RemoteOutput(config.output_url, config.run)
        output.open(report)
        return output

    return agreement.long_task_on_all_ranks(world, act)


def finish_output(output: Optional[RemoteOutput], config: Config, world: World) -> int:
    """Waits until all is uploaded. Returns the exit code, 1 where something is not. A collective."""
    if not config.output_url:
        return 0
    is_whole = agreement.long_task_on_all_ranks(world, lambda report: output.finish() if output else True)
    return 0 if world.broadcast(is_whole) else 1


class RemoteOutput:
    """The remote directory of a run, on rank 0. A job that trains holds its lock from open() until release()."""

    def __init__(self, url: str, run: RunConfig) -> None:
        """run.output_dir is the local directory, which this job alone uses where it trains."""
        self._url, self._run, self._directory = url, run, run.output_dir
        self._held: dict[str, list[str]] = {}  # names of remote checkpoints, oldest first; by folder
        self._uploaded: dict[str, Stamp] = {}  # files beside the checkpoints
        self._lock: Optional[RemoteLock] = None
        self._uploader = Uploader(log.warning)

    def open(self, report: ReportBytes) -> None:
        """Takes the lock, and makes the local directory as new as the remote one. ValueError, one line."""
        if self._run.do_train:
            shutil.rmtree(os.path.join(self._directory, _STAGE), ignore_errors=True)
            self._lock = RemoteLock(self._url, _place_of(self._directory), log.info)
        try:
            start = synchronize(self._url, self._directory, report)
            self._try_writing()
            if self._run.do_train:
                remove_checkpoints(self._url, [])
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

    def _try_writing(self) -> None:
        """A small object is written and removed. ValueError where the storage refuses one of these."""
        url = f"{self._url}/{_PROBE}"
        try:
            remote.write_small(url, b"tried by bert_pretrain\n", at_start=True)
            remote.remove_file(url)
        except OSError as error:
            raise ValueError(f"--output_dir: {url} cannot be written and removed ({error.strerror})") from None

    def on_written(self, prefix: str) -> None:
        """Uploads a checkpoint that is whole; returns at once. Called for those in best/, too."""
        directory, name = os.path.split(prefix)
        kind = os.path.relpath(directory, self._directory)
        what = f"{self._url}: checkpoint {os.path.normpath(os.path.join(kind, name))}"
        stage = os.path.join(self._directory, _STAGE, f"{kind}-{name}")
        discard = partial(shutil.rmtree, stage, ignore_errors=True)
        try:
            checkpoint_files.link_checkpoint(prefix, os.path.join(stage, name))
        except OSError as error:
            self._uploader.fail(kind, what, error)
            return
        self._uploader.submit(kind, Upload(what, partial(self._upload, os.path.join(stage, name), kind), discard))

    def finish(self) -> bool:
        """Uploads what is left and waits for it. False, after a line on stderr, where that failed."""
        if not self._run.do_train and (found := self._job_there()):
            log.info(f"note: results are in {self._directory} alone: {found} trains in {self._url}")
            return True
        upload = Upload(f"{self._url}: the files of the run", self._upload_side_files, lambda: None)
        self._uploader.submit("files", upload)
        problem = self._uploader.finish()
        if problem is None:
            log.info(f"output_dir: {self._url} has all that the run wrote")
            return True
        remedy = f"it is in {self._directory}, and the same command on this machine uploads it"
        log.warning(f"error: {problem}; {remedy}")
        return False

    def release(self) -> None:
        """Lets another job in."""
        if self._lock:
            self._lock.release()

    def _job_there(self) -> Optional[str]:
        with contextlib.suppress(OSError):
            found = remote_lock.read_holder(self._url)
            return name_holder(found) if found else None
        return None

    def _upload(self, prefix: str, kind: str) -> None:
        """On the uploader's thread: the files that are there by now, then the checkpoint."""
        self._upload_side_files()
        url = self._url if kind == "." else f"{self._url}/{kind}"
        most = self._run.keep_checkpoint_max if kind == "." else 1
        self._held[kind] = upload_checkpoint(prefix, url, self._held[kind], most, self._check_lock)

    def _check_lock(self) -> None:
        if self._lock and self._lock.is_lost:
            raise OSError(0, f"another job has taken {self._url}/{remote_lock.LOCK_NAME}")

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
            remote.remove_file(f"{self._url}/{name}")
            del self._uploaded[name]

    def _side_files(self) -> Iterator[tuple[str, Stamp]]:
        """Names and stamps of all files but hidden ones and checkpoints."""
        for folder, folders, names in os.walk(self._directory):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith(".") and not is_of_checkpoint(name):
                    path = os.path.join(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(path)
                        yield os.path.relpath(path, self._directory), (found.st_size, found.st_mtime_ns)


def _place_of(directory: str) -> str:
    """A name of a local directory that none of another machine or container has."""
    found, kernel = os.stat(directory), socket.gethostname()
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        kernel = file.read().strip()
    return f"{kernel}:{found.st_dev}:{found.st_ino}"
