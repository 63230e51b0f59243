"""Checkpoints and the files beside them, between a local directory and a bucket."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, remote_output
from bert_pretrain.checkpoints.remote_output import RemoteOutput
from bert_pretrain.config.training import RunConfig
from bert_pretrain.storage import remote
from tests.storage import servers

servers.require()
PUT_FAULTS = ("503", "500", "reset", "truncated")


def write(directory: Path, step: int, kept: int = 2) -> str:
    """A checkpoint of a run, and the file `checkpoint`; older ones beyond `kept` are removed."""
    prefix = checkpoint_files.prefix_of(str(directory), step)
    values = {"loss_scale/skipped_updates": np.int64(0), "global_step": np.int64(step), "w": np.full(1000, step, "f4")}
    with checkpoint_files.publishing(prefix) as written:
        tensors = [tf.constant(value) for value in values.values()]
        tf.raw_ops.SaveV2(
            prefix=written, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=tensors
        )
    held = sorted(checkpoint_files.prefixes(str(directory)), key=checkpoint_files.step_in_name)
    checkpoint_files.write_state(str(directory), held[-kept:])
    for old in held[:-kept]:
        checkpoint_files.remove_checkpoint(old)
    return prefix


def value(directory: Path, step: int) -> float:
    reader = tf.train.load_checkpoint(checkpoint_files.prefix_of(str(directory), step))
    return float(reader.get_tensor("w")[0])


@pytest.fixture
def started(bucket: str, tmp_path: Path) -> Any:
    """started(name) opens the bucket's directory with a local directory; all are released at the end."""
    opened = []

    def start(name: str = "a", do_train: bool = True, **changes: Any) -> RemoteOutput:
        while opened:
            opened.pop().release()
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        run = RunConfig(output_dir=str(directory), do_train=do_train, keep_checkpoint_max=2, **changes)
        output = RemoteOutput(f"{bucket}/run", run)
        output.open(lambda what, done, total: None)
        opened.append(output)
        return output

    yield start
    while opened:
        opened.pop().release()


def listed(bucket: str) -> list[str]:
    return remote_output.listed_checkpoints(remote.list_folder_if_any(f"{bucket}/run"))


def names(url: str) -> set[str]:
    return {os.path.basename(file.url) for file in remote.list_files(url)} - {"training.lock"}


def test_checkpoints_and_files_are_uploaded_in_order_and_old_ones_removed(bucket, started, proxy, tmp_path) -> None:
    output, paths = started(), []
    proxy.choose_put = lambda number, path: paths.append(path.rpartition("/")[2])
    for step in (1, 2, 3):
        (tmp_path / "a" / "metrics.jsonl").write_text(f"{step}\n" * step)
        (tmp_path / "a" / ".hidden").write_text("x")
        output.on_written(write(tmp_path / "a", step))
        assert output.finish()
    wanted = ["metrics.jsonl", "model.ckpt-3.data-00000-of-00001", "model.ckpt-3.index", "checkpoint"]
    assert [path for path in paths if path != "training.lock"][-4:] == wanted
    kept = {f"model.ckpt-{step}.{part}" for step in (2, 3) for part in ("index", "data-00000-of-00001")}
    assert names(f"{bucket}/run") == {"checkpoint", "metrics.jsonl", *kept}
    assert listed(bucket) == [
        "model.ckpt-2",
        "model.ckpt-3",
    ]
    num_before = len(paths)
    assert output.finish() and set(paths[num_before:]) <= {"training.lock"}  # nothing has changed
    (tmp_path / "a" / "metrics.jsonl").unlink()
    assert output.finish() and "metrics.jsonl" not in names(f"{bucket}/run")
    assert not os.listdir(tmp_path / "a" / ".uploads") or os.listdir(tmp_path / "a" / ".uploads") == ["file"]


@pytest.mark.parametrize("do_train", [True, False])
def test_a_storage_that_takes_no_object_is_refused_at_the_start(
    bucket, started, proxy, monkeypatch, do_train: bool
) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    proxy.choose_put = lambda number, path: "503"
    with pytest.raises(ValueError, match=r"--output_dir: .*cannot be written"):
        started(do_train=do_train)


def test_the_trial_at_the_start_leaves_nothing(bucket, started) -> None:
    started(do_train=False)
    assert not remote.list_folder_if_any(f"{bucket}/run")


@pytest.mark.parametrize("fault", PUT_FAULTS)
def test_errors_on_the_way_leave_whole_objects(bucket, started, proxy, tmp_path, fault: str) -> None:
    output, puts = started(), itertools.cycle([fault, fault, None])  # the lock's own, which come when they will, aside
    proxy.choose_put = lambda number, path: None if "lock" in path else next(puts)
    output.on_written(write(tmp_path / "a", 1))
    assert output.finish() and proxy.faults[fault] >= 3
    for name in ("checkpoint", "model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"):
        assert remote.read_small(f"{bucket}/run/{name}") == (tmp_path / "a" / name).read_bytes()


def test_a_large_file_is_written_in_parts_that_are_tried_again(bucket, proxy, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "_UPLOAD_PART_BYTES", 5 << 20)
    path, paths = tmp_path / "large", []
    path.write_bytes(os.urandom(12 << 20))

    def choose(number: int, path: str) -> Optional[str]:
        paths.append(path)
        return "500" if number == 1 else None

    proxy.choose_put = choose
    remote.write_file(f"{bucket}/large", str(path))
    assert len(paths) == 4 and len(set(paths)) == 3  # one of three parts twice
    assert remote.read_small(f"{bucket}/large") == path.read_bytes()


def test_training_goes_on_while_an_upload_hangs_and_the_newest_is_next(bucket, started, proxy, tmp_path) -> None:
    output, gate, seen, passed = started(), threading.Event(), [], []

    def choose(number: int, path: str) -> None:
        if ".data-" in path:
            seen.append(path.rpartition("/")[2].partition(".data")[0])
            gate.wait(60)
            passed.append(path)

    proxy.choose_put = choose
    output.on_written(write(tmp_path / "a", 1))
    while not seen:
        time.sleep(0.01)
    for step in (2, 3, 4, 5):  # 1 and 2 are removed here meanwhile
        output.on_written(write(tmp_path / "a", step))
    assert not passed, "the first upload still hangs"
    gate.set()
    assert output.finish() and seen == ["model.ckpt-1", "model.ckpt-5"]
    assert listed(bucket) == ["model.ckpt-1", "model.ckpt-5"]


def test_an_upload_that_fails_is_told_and_the_next_one_made(
    bucket, started, proxy, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(remote, "TRIES", 2)
    output = started()
    proxy.choose_put = lambda number, path: "500" if "ckpt-1." in path else None
    output.on_written(write(tmp_path / "a", 1))
    assert not output.finish()
    output.on_written(write(tmp_path / "a", 2))
    assert output.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"warning: {bucket}/run: checkpoint model.ckpt-1 is not uploaded (2 tries failed, ")
    assert str(tmp_path / "a") in lines[1]
    assert listed(bucket) == ["model.ckpt-2"]


def test_an_empty_directory_gets_the_newest_whole_checkpoint_and_its_files(
    bucket, started, put, tmp_path, capsys
) -> None:
    output = started()
    (tmp_path / "a" / "run.json").write_text("{}")
    for step in (1, 2):
        output.on_written(write(tmp_path / "a", step))
        assert output.finish()
    (tmp_path / "a" / "best").mkdir()
    (tmp_path / "a" / "best" / "evaluation.json").write_text("{}")
    output.on_written(write(tmp_path / "a" / "best", 1))
    assert output.finish()
    put("run/model.ckpt-3.data-00000-of-00001", b"an upload that was killed")
    started("b")
    assert "model.ckpt-3.data-00000-of-00001" not in names(f"{bucket}/run")
    found = tmp_path / "b"
    assert value(found, 2) == 2.0 and value(found / "best", 1) == 1.0
    assert (found / "run.json").read_text() == "{}" and (found / "best" / "evaluation.json").exists()
    assert f"model.ckpt-2 of {bucket}/run is fetched to {found}" in capsys.readouterr().out
    put("run/model.ckpt-2.data-00000-of-00001", remote.read_small(f"{bucket}/run/model.ckpt-2.index"))
    started("c")
    assert value(tmp_path / "c", 1) == 1.0 and not (tmp_path / "c" / "model.ckpt-2.index").exists()


def test_what_is_here_is_used_unless_the_bucket_is_newer(bucket, started, tmp_path, capsys) -> None:
    output = started()
    output.on_written(write(tmp_path / "a", 1))
    assert output.finish()
    capsys.readouterr()
    here = write(tmp_path / "a", 2)
    assert started().finish()  # a previous start could not upload it
    assert f"output_dir: {here} is the newest, {bucket}/run has model.ckpt-1" in capsys.readouterr().out
    assert "model.ckpt-2.index" in names(f"{bucket}/run")
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", 1)
    started("b")
    assert f"is fetched to {tmp_path / 'b'}" in capsys.readouterr().out
    state = (tmp_path / "b" / "checkpoint").read_text()
    assert 'model_checkpoint_path: "model.ckpt-2"' in state and 'all_model_checkpoint_paths: "model.ckpt-1"' in state
    started("b")
    assert f"{tmp_path / 'b' / 'model.ckpt-2'} is the newest, {bucket}/run has model.ckpt-2" in capsys.readouterr().out


def test_checkpoints_of_which_none_is_whole_are_one_line(bucket, started, put) -> None:
    for part in ("index", "data-00000-of-00001"):
        put(f"run/model.ckpt-7.{part}", b"damaged")
    with pytest.raises(ValueError, match=f"^--output_dir: .*{bucket}/run .*model.ckpt-7"):
        started()
    assert "training.lock" not in {os.path.basename(file.url) for file in remote.list_files(f"{bucket}/run")}
