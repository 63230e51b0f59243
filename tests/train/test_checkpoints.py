"""Which checkpoint is continued, and what is said of broken ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.train import checkpoints


def save(prefix: str, shapes: dict[str, list[int]], step: int = 5) -> str:
    with tf.Graph().as_default():
        for name, shape in shapes.items():
            tf.compat.v1.get_variable(name, shape, use_resource=True)
        tf.compat.v1.get_variable("global_step", [], tf.int64, tf.compat.v1.constant_initializer(step))
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return tf.compat.v1.train.Saver().save(session, prefix, write_meta_graph=False)


def test_compare_sorts_every_variable_once(tmp_path: Path) -> None:
    reader = checkpoints.open_reader(save(str(tmp_path / "c"), {"a": [2], "b": [3], "c": [4]}), "init_checkpoint")
    found = checkpoints.compare(reader, {"a": (2,), "b": (5,), "d": (1,)})
    assert found.matched == ["a"]
    assert found.missing == ["d"]
    assert found.misshaped == ["b: checkpoint [3], model [5]"]
    assert found.extra == ["c", "global_step"]


def test_newest_and_its_step(tmp_path: Path) -> None:
    assert checkpoints.newest(str(tmp_path)) is None
    prefix = save(str(tmp_path / "model.ckpt-5"), {"a": [2]})
    assert checkpoints.newest(str(tmp_path)) == prefix
    assert checkpoints.step_of(prefix) == 5
    assert checkpoints.step_of(None) == 0


def test_checkpoints_without_the_state_file_are_not_overlooked(tmp_path: Path) -> None:
    save(str(tmp_path / "model.ckpt-5"), {"a": [2]})
    os.remove(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"holds model\.ckpt-5\.index but no readable file `checkpoint`"):
        checkpoints.newest(str(tmp_path))


def test_a_missing_prefix_names_a_neighbour(tmp_path: Path) -> None:
    prefix = save(str(tmp_path / "c"), {"a": [2]})
    with pytest.raises(ValueError, match=r"--init_checkpoint: .*/d.index does not exist; give a prefix .* as .*/c"):
        checkpoints.open_reader(str(tmp_path / "d"), "init_checkpoint")
    with pytest.raises(ValueError, match="nor does"):
        checkpoints.open_reader(str(tmp_path / "nowhere" / "d"), "init_checkpoint")
    os.remove(f"{prefix}.data-00000-of-00001")
    with pytest.raises(ValueError, match=r"c.index is there but its .data files are not"):
        checkpoints.open_reader(prefix, "init_checkpoint")


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    prefix = save(str(tmp_path / "c"), {"a": [2]})
    with open(f"{prefix}.index", "r+b") as file:
        file.truncate(20)
    with pytest.raises(ValueError, match="cannot be read") as error:
        checkpoints.open_reader(prefix, "init_checkpoint")
    assert "\n" not in str(error.value)
