"""Checkpoints in a remote directory: which is the newest, fetching and uploading one so that no half of it counts.

A remote checkpoint counts once its `.index` is there, which is written after its data; the file `checkpoint` follows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Callable

from bert_pretrain.storage import remote, transfer
from bert_pretrain.storage.remote import Folder, RemoteFile
from bert_pretrain.train import checkpoint_files, checkpoints

_OF_CHECKPOINT = re.compile(r"(.+)\.(index|data-\d+-of-(\d+))")


def is_of_checkpoint(name: str) -> bool:
    """True for the names of a run's checkpoints' files, and for the file `checkpoint`."""
    match = _OF_CHECKPOINT.fullmatch(name)
    return name == checkpoint_files.STATE_FILE or (match is not None and checkpoint_files.step_in_name(match[1]) >= 0)


def names(folder: Folder) -> list[str]:
    """The names of a run's whole checkpoints, the newest last."""
    found = {name[: -len(".index")] for name in folder if name.endswith(".index")}
    whole = [name for name in found if checkpoint_files.step_in_name(name) >= 0 and len(_files(folder, name)) > 1]
    return sorted(whole, key=checkpoint_files.step_in_name)


def listed(folder: Folder) -> list[str]:
    """The names that the file `checkpoint` of a remote directory lists."""
    state = folder.get(checkpoint_files.STATE_FILE)
    text = remote.read_small(state.url).decode(errors="replace") if state else ""
    return re.findall(r'^all_model_checkpoint_paths: "(.+)"$', text, re.MULTILINE)


def fetch(folder: Folder, name: str, directory: str, count: transfer.Count) -> None:
    """Fetches a checkpoint, which appears whole. ValueError where it is damaged, OSError where it cannot be read."""
    with checkpoint_files.publishing(os.path.join(directory, name)) as prefix:
        for file in _files(folder, name):
            transfer.download(file, os.path.join(os.path.dirname(prefix), os.path.basename(file.url)), count)
        checkpoints.open_whole(prefix, "output_dir")


def num_bytes(folder: Folder, name: str) -> int:
    """The size of a checkpoint."""
    return sum(file.num_bytes for file in _files(folder, name))


def upload(prefix: str, url: str, held: Sequence[str], most: int, check: Callable[[], None]) -> list[str]:
    """Uploads a local checkpoint, then removes the oldest of `held` so that `most` stay (0: all). Returns those.

    held: names of the run's remote checkpoints, oldest first. check() raises OSError where the directory is another's.
    """
    name = os.path.basename(prefix)
    if name in held:  # an old index must not stand beside new data
        remote.remove(f"{url}/{name}.index")
    for path in checkpoint_files.data_files(prefix):
        remote.write_file(f"{url}/{os.path.basename(path)}", path)
    check()
    remote.write_file(f"{url}/{name}.index", f"{prefix}.index")
    new = [*(one for one in held if one != name), name]
    num_old = max(0, len(new) - (most or len(new)))
    old, new = new[:num_old], new[num_old:]
    remote.write_small(f"{url}/{checkpoint_files.STATE_FILE}", checkpoint_files.state_text(new).encode())
    remove(url, old)
    return new


def remove(url: str, old: Sequence[str]) -> None:
    """Removes checkpoints, the index first, and what a killed job left of one that it was uploading."""
    folder = remote.list_folder(url)
    for name in old:
        for file in _files(folder, name):
            remote.remove(file.url)
    for name, file in folder.items():
        match = _OF_CHECKPOINT.fullmatch(name)
        if match and match[3] and checkpoint_files.step_in_name(match[1]) >= 0 and f"{match[1]}.index" not in folder:
            remote.remove(file.url)


def _files(folder: Folder, prefix: str) -> list[RemoteFile]:
    """A checkpoint's files, the index first; none unless all of them are there."""
    matches = {name: _OF_CHECKPOINT.fullmatch(name) for name in folder}
    data = [name for name, match in matches.items() if match and match[1] == prefix and match[3]]
    if f"{prefix}.index" not in folder or not data or len(data) != int(matches[data[0]][3]):
        return []
    return [folder[f"{prefix}.index"], *(folder[name] for name in sorted(data))]
