"""Checkpoints appear whole or not at all; leftovers go; the file `checkpoint` is TensorFlow's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files
from tests import forked


def write(prefix: str, content: str = "whole") -> None:
    Path(f"{prefix}.data-00000-of-00001").write_text(content)
    Path(f"{prefix}.index").write_text(content)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


FILES = ["model.ckpt-5.data-00000-of-00001", "model.ckpt-5.index"]


def test_published_whole_in_the_place_of_an_old_one(tmp_path: Path) -> None:
    prefix = checkpoint_files.prefix_of(str(tmp_path), 5)
    write(prefix, "old")
    with checkpoint_files.publishing(prefix) as unpublished:
        write(unpublished, "new")
        assert Path(f"{prefix}.index").read_text() == "old"
    assert names(tmp_path) == FILES
    assert {Path(tmp_path, name).read_text() for name in FILES} == {"new"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    prefix = checkpoint_files.prefix_of(str(tmp_path), 5)
    write(prefix, "old")
    with pytest.raises(OSError, match="full"), checkpoint_files.publishing(prefix) as unpublished:
        write(unpublished, "new")
        raise OSError("full")
    assert names(tmp_path) == FILES
    assert {Path(tmp_path, name).read_text() for name in FILES} == {"old"}


@pytest.mark.parametrize("killed_at_rename", [1, 2, 3])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, killed_at_rename: int) -> None:
    """The data file, the index and the file `checkpoint` are renamed; the process dies before the n-th of them."""
    code = f"""
import os, signal
from bert_pretrain.checkpoints import checkpoint_files as files
from tests.checkpoints.test_checkpoint_files import write
renames, replace = [], os.replace
def dying(*paths):
    renames.append(paths)
    if len(renames) == {killed_at_rename}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = dying
prefix = files.prefix_of({str(tmp_path)!r}, 5)
with files.publishing(prefix) as unpublished:
    write(unpublished)
files.write_state({str(tmp_path)!r}, [prefix])
"""
    assert forked.run(code).returncode == -signal.SIGKILL
    assert any(name.startswith(".") for name in names(tmp_path))
    checkpoint_files.remove_leftovers(str(tmp_path))
    assert names(tmp_path) == (FILES if killed_at_rename == 3 else [])


def test_leftovers_of_tensorflows_own_saver_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write(str(tmp_path / "model.ckpt-5"))
    (tmp_path / "model.ckpt-9.data-00000-of-00001").write_text("copied by the user; the index may follow")
    (tmp_path / "model.ckpt-7.data-00000-of-00001.tempstate8801166893545545875").write_text("half")
    checkpoint_files.remove_leftovers(str(tmp_path))
    assert names(tmp_path) == [*FILES, "model.ckpt-9.data-00000-of-00001"]


def test_a_link_outlives_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*paths: str) -> None:
        raise OSError("this file system has no links")

    for name in ("linked", "copied"):
        (tmp_path / name).mkdir()
        prefix, target = str(tmp_path / "model.ckpt-5"), str(tmp_path / name / "model.ckpt-5")
        write(prefix)
        checkpoint_files.link_checkpoint(prefix, target)
        assert os.path.samefile(f"{prefix}.index", f"{target}.index") is (name == "linked")
        checkpoint_files.remove_checkpoint(prefix)
        assert names(tmp_path / name) == FILES and Path(f"{target}.index").read_text() == "whole"
        monkeypatch.setattr(os, "link", no_links)


def test_tensorflow_reads_the_state_file(tmp_path: Path) -> None:
    prefixes = [checkpoint_files.prefix_of(str(tmp_path), step) for step in (5, 10)]
    checkpoint_files.write_state(str(tmp_path), prefixes)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == prefixes[1]
    assert list(state.all_model_checkpoint_paths) == prefixes


def test_steps_are_read_from_names() -> None:
    assert checkpoint_files.step_in_name("/a/model.ckpt-28252") == 28252
    assert checkpoint_files.step_in_name("/a/bert_model.ckpt") == -1
