"""Updates that were refused: what a run leaves of them, and the same update again, alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data.schema import encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.train import replay
from bert_pretrain.train.replay import RefusedUpdate
from tests.e2e import ranks, runs
from tests.train.small import random_examples

REFUSED = RefusedUpdate(8, 7, 1.0, "w", "model.ckpt-7", 2, {"seed": 0}, "f", [["a:1"], ["a:2"]])
LONGEST = 12  # the only record with a token at the last position


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """24 records, of which one is the longest."""
    folder = tmp_path_factory.mktemp("data")
    examples = random_examples(np.random.default_rng(2), 24)
    assert np.flatnonzero(examples.input_mask[:, 63]).tolist() == [LONGEST]
    (folder / "train").mkdir()
    write_shard(str(folder / "train" / "part.tfrecord"), encode_examples(examples))
    return {"input_files_dir": str(folder / "train"), "bert_config_file": runs.write_model(folder / "model.json")}


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = replay.write_refused_update(str(tmp_path), REFUSED)
    assert path == f"{tmp_path}/refused_update-8.json"
    assert replay.read_refused_update(path) == REFUSED


@pytest.mark.parametrize(
    "change",
    [{"ranks": 10**9}, {"position": -1}, {"loss_scale": "1"}, {"checkpoint": 7}, {"records": None}, {"more": 1}],
)
def test_a_file_that_no_run_writes_is_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "refused_update-8.json"
    path.write_text(json.dumps({**REFUSED._asdict(), **change}))
    with pytest.raises(ValueError, match=f"--replay_update: {path}.*") as error:
        replay.read_refused_update(str(path))
    assert "\n" not in str(error.value)


def test_a_learning_rate_that_is_too_high_is_replayed_from_the_weights_before(data, tmp_path: Path) -> None:
    values = {
        **data, **runs.settings(output_dir=str(tmp_path), learning_rate=1e30, optimizer_type="adam", num_warmup_steps=0)
    }  # fmt: skip
    with pytest.raises(ValueError, match="the gradient is not finite, first at") as error:
        runs.train(**values)
    path = re.search(r"--replay_update=(\S+)", str(error.value))[1]
    first_bad = re.search(r"first at (\S+)", str(error.value))[1]
    refused = replay.read_refused_update(path)
    assert (refused.first_bad_variable, refused.checkpoint) == (first_bad, f"model.ckpt-{refused.update - 1}")
    assert (tmp_path / f"{refused.checkpoint}.index").exists()
    done = runs.start(runs.flags(**values, replay_update=path))
    assert done.returncode == 0, done.stderr
    assert f"first {first_bad}\n" in done.stdout and "first record whose own gradient is not finite: /" in done.stdout
    assert len(re.findall(r"^rank 0, micro-batch [0-9]+: loss", done.stdout, re.MULTILINE)) >= 1
    other = runs.start(runs.flags(**{**values, "train_batch_size": 6}, replay_update=path))
    assert other.returncode == 2
    assert "error: --replay_update: the update had --train_batch_size=3, now it is 6; give the flags" in other.stderr


@pytest.mark.slow
@pytest.mark.horovod
def test_the_record_at_fault_is_found_alone_among_those_of_two_ranks(data, tmp_path: Path) -> None:
    pytest.importorskip({"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"))
    made, broken = tmp_path / "made", str(tmp_path / "broken.ckpt")
    runs.train(**data, **runs.settings(output_dir=str(made), num_train_steps=1))
    tensors = runs.tensors(made / "model.ckpt-1")
    tensors["bert/embeddings/position_embeddings"][63] = 3e38
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=broken,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[*map(tf.constant, tensors.values())],
    )
    arguments = runs.flags(
        **data, **runs.settings(output_dir=str(tmp_path / "out"), num_accumulation_steps=4, init_checkpoint=broken)
    )
    ended = ranks.run([*ranks.mpirun(2), *ranks.trainer(arguments)], tmp_path)
    assert ended.code == 2, ended.err
    path = tmp_path / "out" / "refused_update-1.json"
    refused = replay.read_refused_update(str(path))
    assert (refused.ranks, refused.checkpoint) == (2, None)
    records = sorted(record for of_rank in refused.records for record in of_rank)
    assert len(set(records)) == 24, "all records"
    done = runs.start([*arguments, f"--replay_update={path}"])
    assert done.returncode == 0, done.stderr
    found = re.search(r"own gradient is not finite: \S+:(\d+) \(rank (\d)\)", done.stdout)
    assert found and int(found[1]) == LONGEST, done.stdout
    assert any(record.endswith(f":{found[1]}") for record in refused.records[int(found[2])])
    assert {"rank 0", "rank 1"} == set(re.findall(r"^(rank \d), micro-batch", done.stdout, re.MULTILINE))
