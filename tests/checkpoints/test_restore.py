"""Which checkpoint is continued, and what is said of broken ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, restore

OWN = {"a": [2000], "loss_scale/skipped_updates": []}


def save(prefix: str, shapes: dict[str, list[int]], step: int = 5) -> str:
    with tf.Graph().as_default():
        for name, shape in shapes.items():
            tf.compat.v1.get_variable(name, shape, use_resource=True)
        tf.compat.v1.get_variable("global_step", [], tf.int64, tf.compat.v1.constant_initializer(step))
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return tf.compat.v1.train.Saver().save(session, prefix, write_meta_graph=False)


def save_run(directory: Path, *steps: int) -> list[str]:
    """Checkpoints of a run, and the file `checkpoint`."""
    prefixes = [save(checkpoint_files.prefix_of(str(directory), step), OWN, step) for step in steps]
    checkpoint_files.write_state(str(directory), prefixes)
    return prefixes


def truncate(prefix: str) -> None:
    os.truncate(f"{prefix}.data-00000-of-00001", 1000)


def flip_a_bit(prefix: str) -> None:
    with open(f"{prefix}.data-00000-of-00001", "r+b") as file:
        file.seek(500)
        (byte,) = file.read(1)
        file.seek(500)
        file.write(bytes([byte ^ 1]))


def truncate_index(prefix: str) -> None:
    os.truncate(f"{prefix}.index", 20)


def remove_data(prefix: str) -> None:
    os.remove(f"{prefix}.data-00000-of-00001")


DAMAGE = {
    truncate: "is damaged: a cannot be read: ",
    flip_a_bit: "is damaged: a cannot be read: TensorBundle at .* Checksum does not match",
    truncate_index: "cannot be read: file is too short to be an sstable",
    remove_data: "its .data files are not",
    checkpoint_files.remove_checkpoint: "does not exist, although the file `checkpoint` names it",
}


def test_compare_sorts_every_variable_once(tmp_path: Path) -> None:
    reader = restore.open_reader(save(str(tmp_path / "c"), {"a": [2], "b": [3], "c": [4]}), "init_checkpoint")
    found = restore.compare_variables(reader, {"a": (2,), "b": (5,), "d": (1,)})
    assert found.matched == ["a"]
    assert found.missing == ["d"]
    assert found.misshaped == ["b: checkpoint [3], model [5]"]
    assert found.extra == ["c", "global_step"]


def test_newest_and_its_step(tmp_path: Path) -> None:
    assert restore.find_newest(str(tmp_path)) == restore.NewestCheckpoint()
    prefixes = save_run(tmp_path, 5, 10)
    assert restore.find_newest(str(tmp_path)) == (prefixes[1], True, tuple(prefixes), ())
    assert restore.step_of(prefixes[0]) == 5
    assert restore.step_of(None) == 0


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_one_is_named_and_the_one_before_is_taken(tmp_path: Path, damage: Callable) -> None:
    prefixes = save_run(tmp_path, 3, 5, 10)
    damage(prefixes[2])
    found = restore.find_newest(str(tmp_path))
    assert (found.prefix, found.is_own, found.kept) == (prefixes[1], True, tuple(prefixes[:2]))
    (notice,) = found.notices
    assert notice.startswith(prefixes[2]) and notice.endswith(f"; taking {prefixes[1]}") and "\n" not in notice
    with pytest.raises(ValueError, match=r"--output_dir: .*/model\.ckpt-10"):
        restore.open_whole(prefixes[2], "output_dir")


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_only_damaged_ones_end_in_one_line_with_a_remedy_that_works(tmp_path: Path, damage: Callable) -> None:
    (prefix,) = save_run(tmp_path, 5)
    damage(prefix)
    with pytest.raises(ValueError, match=DAMAGE[damage]) as error:
        restore.find_newest(str(tmp_path))
    assert "\n" not in str(error.value)
    assert f"move these and {tmp_path}/checkpoint away to start anew" in str(error.value)
    checkpoint_files.remove_checkpoint(prefix)
    os.remove(tmp_path / "checkpoint")
    assert restore.find_newest(str(tmp_path)) == restore.NewestCheckpoint()


@pytest.mark.parametrize("content", [None, b"", b"model_checkpoint_path: ", b"\xff\xfe\x00"])
def test_without_a_readable_state_file_the_newest_is_taken_and_named(tmp_path: Path, content: bytes) -> None:
    prefixes = save_run(tmp_path, 5, 10)
    save(str(tmp_path / "model.ckpt-28252"), {"a": [2]})  # weights come after every run's own checkpoint
    os.remove(tmp_path / "checkpoint")
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    found = restore.find_newest(str(tmp_path))
    notice = f"{tmp_path} has no readable file `checkpoint`; taking {prefixes[1]}, the newest there"
    assert found == (prefixes[1], True, tuple(prefixes), (notice,))


def test_the_state_file_may_name_an_earlier_one(tmp_path: Path) -> None:
    prefixes = save_run(tmp_path, 5, 10)
    text = (tmp_path / "checkpoint").read_text().replace('model_checkpoint_path: "model.ckpt-10"', "", 1)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-5"\n{text}')
    assert restore.find_newest(str(tmp_path))[:3] == (prefixes[0], True, (prefixes[0],))


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("name", ["model.ckpt-28252", "bert_model.ckpt"])
def test_a_published_one_is_weights_and_is_never_removed(tmp_path: Path, name: str, has_state: bool) -> None:
    prefix = save(str(tmp_path / name), {"a": [2]})
    if not has_state:
        os.remove(tmp_path / "checkpoint")
    assert restore.find_newest(str(tmp_path))[:3] == (prefix, False, ())


def test_a_checkpoint_of_another_optimizer_is_one_line(tmp_path: Path) -> None:
    (prefix,) = save_run(tmp_path, 5)
    restore.check_state(prefix, OWN)
    with pytest.raises(ValueError, match=r"lacks a/adam_m and 1 more; give the --optimizer_type with which"):
        restore.check_state(prefix, [*OWN, "a/adam_m", "a/adam_v"])


def test_a_directory_stands_for_the_checkpoint_that_its_state_file_names(tmp_path: Path) -> None:
    prefixes = save_run(tmp_path, 5, 10)
    assert restore.resolve_prefix(str(tmp_path)) == prefixes[1]
    assert restore.resolve_prefix(prefixes[0]) == prefixes[0]
    assert restore.resolve_prefix(str(tmp_path / "nowhere")) == str(tmp_path / "nowhere")


def test_a_missing_prefix_names_a_neighbour(tmp_path: Path) -> None:
    prefix = save(str(tmp_path / "c"), {"a": [2]})
    with pytest.raises(ValueError, match=r"--init_checkpoint: .*/d.index does not exist; give a prefix .* as .*/c"):
        restore.open_reader(str(tmp_path / "d"), "init_checkpoint")
    with pytest.raises(ValueError, match="nor does"):
        restore.open_reader(str(tmp_path / "nowhere" / "d"), "init_checkpoint")
    remove_data(prefix)
    with pytest.raises(ValueError, match=r"c.index is there but its .data files are not"):
        restore.open_reader(prefix, "init_checkpoint")


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    prefix = save(str(tmp_path / "c"), {"a": [2]})
    truncate_index(prefix)
    with pytest.raises(ValueError, match="cannot be read") as error:
        restore.open_reader(prefix, "init_checkpoint")
    assert "\n" not in str(error.value)


def test_the_reason_is_what_the_operating_system_says() -> None:
    def failing(text: str) -> tf.errors.OpError:
        return tf.errors.ResourceExhaustedError(None, None, text)

    older = "/a; No space left on device\n\t [[node SaveV2]]"
    newer = f"Graph execution error:\n\nDetected at node 'SaveV2' defined at\nNode: 'SaveV2'\n{older}\nHint: none"
    for text in (older, newer):
        assert restore.error_reason(failing(text)) == "/a; No space left on device"
    assert restore.error_reason(OSError(28, "No space left on device", "/a")) == "No space left on device"
    assert restore.error_reason(IndexError("Read less bytes\nthan requested")) == "Read less bytes"


@pytest.mark.parametrize("name", ["out [8]", "back\\", "a*", "\udcff", "a,b ?"])
def test_checkpoints_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """TensorFlow would look for a pattern: in out [8] for what out 8 holds."""
    directory, prefix = tmp_path / name, str(tmp_path / name / f"model{name}")
    directory.mkdir()
    for place in (checkpoint_files.prefix_of(str(directory), 5), prefix):
        with checkpoint_files.publishing(place) as written:
            values = [tf.constant(1.0), tf.constant(5, tf.int64), tf.constant(0, tf.int64)]
            names = ["a", "global_step", "loss_scale/skipped_updates"]
            tf.raw_ops.SaveV2(prefix=written, tensor_names=names, shape_and_slices=[""] * 3, tensors=values)
            restore.open_whole(written, "output_dir")
    assert restore.open_whole(prefix, "init_checkpoint").get_tensor("a") == 1
    newest = checkpoint_files.prefix_of(str(directory), 5)
    checkpoint_files.write_state(str(directory), [newest])
    assert restore.resolve_prefix(str(directory)) == newest
    found = restore.find_newest(str(directory))
    assert (found.prefix, found.is_own, found.kept, found.notices) == (newest, True, (newest,), ())
    assert restore.updates_read_by(newest) == restore.step_of(newest) == 5
