"""Where a run goes on whose output_dir is a URL: with its local directory, or with a newer remote checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple, Optional

from bert_pretrain.distributed.long_task import Report
from bert_pretrain.storage import remote, remote_lock, transfer
from bert_pretrain.storage.remote import Folder, RemoteFile
from bert_pretrain.system import files
from bert_pretrain.train import checkpoint_files, checkpoints, remote_checkpoints
from bert_pretrain.train.checkpoint_files import step_in_name
from bert_pretrain.train.checkpoint_writer import BEST


class Start(NamedTuple):
    """What the two directories hold of a run."""

    held: list[str]  # names of the run's remote checkpoints, oldest first
    held_best: list[str]  # of those in best/
    not_there: Optional[str]  # prefix of the newest checkpoint, where only the local directory has it


def synchronize(url: str, directory: str, report: Report) -> Start:
    """Makes a local directory as new as a remote one, and prints which of them the run goes on with.

    OSError where the remote one cannot be read; ValueError where it holds checkpoints and none is whole.
    """
    folder, best, here = remote.list_folder(url), remote.list_folder(f"{url}/{BEST}"), _newest(directory)
    whole = remote_checkpoints.names(folder)
    there = [name for name in remote_checkpoints.listed(folder) if name in whole]
    step = step_in_name(here) if here else -1
    newer = [name for name in reversed(there) if step_in_name(name) > step]
    wanted = newer if here else dict.fromkeys([*newer, *reversed(whole)])
    fetched = _fetch_first(url, folder, wanted, directory, report)
    if fetched or not here:
        _fetch_side_files(folder, best, directory)
    print(f"output_dir: {_description(url, directory, here, fetched, there)}", flush=True)
    prefix = os.path.join(directory, fetched) if fetched else here
    is_own = prefix is not None and checkpoints.holds_run(prefix)  # else a published checkpoint, which stays
    only_here = here if here and not fetched and os.path.basename(here) not in there else None
    return Start(there if is_own else [], remote_checkpoints.names(best), only_here)


def _description(url: str, directory: str, here: Optional[str], fetched: str, there: list[str]) -> str:
    if fetched:
        return f"{fetched} of {url} is fetched to {directory}, which has {'older ones' if here else 'no checkpoint'}"
    newest = there[-1] if there else "no checkpoint"
    return f"{here} is the newest, {url} has {newest}" if here else f"{url} has {newest}; the run works in {directory}"


def _newest(directory: str) -> Optional[str]:
    """The newest whole checkpoint of the run in a local directory; a published one is not the run's."""
    try:
        found = checkpoints.newest(directory) if os.path.isdir(directory) else checkpoints.Found()
    except ValueError:  # none is whole; a remote one may be
        return None
    return found.prefix if found.is_own else None


def _fetch_first(url: str, folder: Folder, wanted: Iterable[str], directory: str, report: Report) -> str:
    """The name of the first checkpoint that is whole, which then is the newest here; empty where none is wanted."""
    problems = []
    for name in wanted:
        total = remote_checkpoints.num_bytes(folder, name)
        try:
            remote_checkpoints.fetch(folder, name, directory, transfer.counter(f"fetching {name}", total, report))
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


def _fetch_side_files(folder: Folder, best: Folder, directory: str) -> None:
    """Fetches the files beside the checkpoints, and best/, so that a later evaluation is compared with it."""
    for name, file in folder.items():
        if not remote_checkpoints.is_of_checkpoint(name) and name != remote_lock.NAME:
            _fetch_file(file, os.path.join(directory, name))
    best_directory = os.path.join(directory, BEST)
    for name in remote_checkpoints.names(best)[-1:]:
        remote_checkpoints.fetch(best, name, best_directory, lambda num_bytes: None)
        checkpoint_files.write_state(best_directory, [os.path.join(best_directory, name)])
    for name, file in best.items():
        if not remote_checkpoints.is_of_checkpoint(name):
            _fetch_file(file, os.path.join(best_directory, name))


def _fetch_file(file: RemoteFile, path: str) -> None:
    with files.atomic_write(path, "wb") as output:
        transfer.download(file, output.name)
