"""The files of checkpoints in a directory: names, publishing whole ones, links, removal, the file `checkpoint`.

A checkpoint is a prefix with an `.index` and one or more `.data-?????-of-?????` files. It is written into a hidden
folder beside its place and its files are renamed from there, the index last, so one that has an index is whole.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence

from bert_pretrain.system import files

STATE_FILE = "checkpoint"
_UNPUBLISHED = ".unpublished-"
_WRITTEN = "weights"  # the name of a checkpoint until it is published


def prefix_of(directory: str, step: int) -> str:
    """The prefix of the checkpoint that is written after update `step`."""
    return os.path.join(directory, f"model.ckpt-{step}")


def step_in_name(prefix: str) -> int:
    """N of `model.ckpt-N`, or -1 for any other name."""
    match = re.fullmatch(r"model\.ckpt-(\d+)", os.path.basename(prefix))
    return int(match[1]) if match else -1


def has_index(prefix: str) -> bool:
    """True if a checkpoint with this prefix exists, whole or damaged."""
    return os.path.isfile(f"{prefix}.index")


def data_files(prefix: str) -> list[str]:
    """Paths of the `.data` files that are there."""
    return sorted(glob.glob(f"{glob.escape(prefix)}.data-*-of-*"))


def prefixes(directory: str) -> list[str]:
    """All prefixes with an index in a directory, sorted by name."""
    return [path[: -len(".index")] for path in sorted(glob.glob(os.path.join(glob.escape(directory), "*.index")))]


@contextlib.contextmanager
def publishing(prefix: str) -> Iterator[str]:
    """Yields a prefix to write to; then makes what was written appear at `prefix`, whole and on the disk.

    TensorFlow takes the prefix to write to as it is, whatever characters `prefix` has. An exception removes what was
    written; a checkpoint that was at `prefix` before then stays.
    """
    directory, name = os.path.split(prefix)
    folder = os.path.join(directory, f"{_UNPUBLISHED}{name}")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        with files.plain_name(folder) as plain:
            written = os.path.join(plain, _WRITTEN)
            yield written
            files.sync_to_disk(*data_files(written), f"{written}.index")
            remove_checkpoint(prefix)  # an old index must not stand beside new data
            for path in (*data_files(written), f"{written}.index"):
                os.replace(path, prefix + path[len(written) :])
        files.sync_to_disk(directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_checkpoint(prefix: str, target: str) -> None:
    """Makes the checkpoint appear at the prefix `target`, too, without a second copy where the file system can."""
    with publishing(target) as written:
        for path in (*data_files(prefix), f"{prefix}.index"):
            new = written + path[len(prefix) :]
            try:
                os.link(path, new)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, new)


def remove_checkpoint(prefix: str) -> None:
    """Removes a checkpoint's files, the index first."""
    for path in (f"{prefix}.index", *data_files(prefix)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def write_state(directory: str, held: Iterable[str]) -> None:
    """Writes the file `checkpoint` in TensorFlow's format; `held` are prefixes in the directory, the newest last."""
    with files.atomic_write(os.path.join(directory, STATE_FILE)) as file:
        file.write(state_text([os.path.basename(prefix) for prefix in held]))


def state_text(names: Sequence[str]) -> str:
    """The content of the file `checkpoint` that lists checkpoints, the newest last."""
    return "".join(
        [f'model_checkpoint_path: "{names[-1]}"\n', *(f'all_model_checkpoint_paths: "{name}"\n' for name in names)]
    )


def remove_leftovers(directory: str) -> None:
    """Removes what a killed process left of a checkpoint that it was writing. Only for the directory's one owner."""
    for folder in glob.glob(os.path.join(glob.escape(directory), f"{_UNPUBLISHED}*")):
        prefix = os.path.join(directory, os.path.basename(folder)[len(_UNPUBLISHED) :])
        if not has_index(prefix):  # killed between two renames
            remove_checkpoint(prefix)
        shutil.rmtree(folder, ignore_errors=True)
    # TensorFlow's own temporary names, of versions that saved with tf.train.Saver.
    for path in glob.glob(os.path.join(glob.escape(directory), "model.ckpt-*.tempstate*")):
        os.remove(path)
    files.remove_partials(os.path.join(directory, STATE_FILE))
