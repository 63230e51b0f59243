"""A checkpoint whose files were changed is read with its values, or refused in a line: no traceback, crash or hang."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.checkpoints import checkpoint_files, restore
from tests.fuzz.examples import assert_is_one_line, fuzz

_MAX_MEMORY = 64 << 20  # bytes, for a checkpoint of two kilobytes
RANDOM = np.random.default_rng(0)
TENSORS = {
    "bert/embeddings/word_embeddings": RANDOM.normal(size=(31, 4)).astype(np.float32),
    "bert/pooler/dense/bias": RANDOM.normal(size=4).astype(np.float32),
    "bert/pooler/dense/bias/LAMB": np.zeros(4, np.float32),
    "global_step": np.int64(7),
    "loss_scale/skipped_updates": np.int64(0),
}
SHAPES = {name: value.shape for name, value in TENSORS.items()}
SUFFIXES = (".index", ".data-00000-of-00001")

# Of a file: what is changed, at which share of it, how many bytes are taken away, what stands there instead.
changes = st.lists(
    st.tuples(
        st.sampled_from(SUFFIXES),
        st.floats(0, 1),
        st.sampled_from([0, 1, 1, 2, 8, 48, 10**9]),
        st.binary(max_size=8) | st.sampled_from([b"\xff" * 9, b"\0" * 48]),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint as runs leave it."""
    folder = tmp_path_factory.mktemp("whole")
    prefix = str(folder / "model.ckpt-7")
    names = list(TENSORS)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(TENSORS.values())
    )
    checkpoint_files.write_state(str(folder), [prefix])
    return folder


def read(folder: Path) -> dict[str, np.ndarray]:
    """What a run that goes on would load."""
    found = restore.find_newest(str(folder))
    assert found.prefix is not None
    restore.check_model(found.prefix, "output_dir", SHAPES)
    reader = restore.open_reader(found.prefix, "output_dir")
    return {name: reader.get_tensor(name) for name in TENSORS}


def assert_read_or_refused(folder: Path) -> None:
    tracemalloc.start()
    try:
        found = read(folder)
    except ValueError as error:
        assert_is_one_line(error)
    else:
        assert all(np.array_equal(found[name], value) for name, value in TENSORS.items())
    finally:
        assert tracemalloc.get_traced_memory()[1] < _MAX_MEMORY
        tracemalloc.stop()


@fuzz()
@given(changes)
def test_a_damaged_checkpoint_is_read_whole_or_refused(whole: Path, tmp_path: Path, edits: list) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    for suffix, share, removed, added in edits:
        path = folder / f"model.ckpt-7{suffix}"
        content = path.read_bytes()
        at = int(share * len(content))
        path.write_bytes(content[:at] + added + content[at + removed :])
    assert_read_or_refused(folder)


@fuzz()
@given(st.binary(max_size=80), st.sampled_from([*SUFFIXES, "checkpoint"]))
def test_any_bytes_in_place_of_a_file(whole: Path, tmp_path: Path, content: bytes, which: str) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    (folder / (which if which == "checkpoint" else f"model.ckpt-7{which}")).write_bytes(content)
    assert_read_or_refused(folder)
