"""Whole runs whose updates or records grow: --rampup_batch_size and --rampup_seq_length."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import schema
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.data.truncation import truncate_examples
from tests.e2e import ranks, runs
from tests.e2e.test_dynamic_masking import write_masked_data

# Twelve updates, over all ranks: 6 until 30 examples are read, 12 until 60, then 18 = A x B.
SIZES = [6, 6, 6, 6, 6, 12, 12, 12, 18, 18, 18, 18]
ENDS = [sum(SIZES[: n + 1]) for n in range(12)]
RAMP = {"rampup_batch_size": "6,6,60", "num_accumulation_steps": 6, "num_train_steps": 12, "learning_rate": 1e-3}


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = runs.tensors(one), runs.tensors(other)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint after each of twelve updates, and an evaluation about every 25 examples."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs.train(**settings(data, folder))
    return folder


def settings(data: dict[str, str], folder: Path, **changes: object) -> dict[str, object]:
    return {
        **data, **runs.settings(**RAMP), "output_dir": str(folder), "save_checkpoints_steps": 1,
        "keep_checkpoint_max": 0, "do_eval": True, "max_eval_steps": 1, "samples_start_eval": 0,
        "samples_between_eval": 25, "stop_threshold": 0.0, **changes,
    }  # fmt: skip


def test_examples_are_counted_wherever_they_are_told(undisturbed: Path) -> None:
    assert [point["examples"] for point in runs.metrics(undisturbed, "train")] == ENDS
    crossed = [n + 1 for n in range(12) if ENDS[n] // 25 > (ENDS[n] - SIZES[n]) // 25]
    evaluations = runs.metrics(undisturbed, "eval")
    assert [point["update"] for point in evaluations] == sorted({0, 12, *crossed})
    assert [point["examples"] for point in evaluations if point["update"]] == [
        ENDS[update - 1] for update in sorted({12, *crossed})
    ]
    assert json.loads((undisturbed / "results.json").read_text())["examples"] == ENDS[-1]
    assert [point["learning_rate"] for point in runs.metrics(undisturbed, "train")][2:] == pytest.approx(
        [1e-3 * (1 - step / 12) for step in range(2, 12)], rel=1e-5
    ), "the schedule counts updates"


@pytest.mark.parametrize("update", range(1, 12))
def test_a_run_goes_on_from_every_update_as_if_it_had_never_stopped(
    update: int, data: dict[str, str], undisturbed: Path, tmp_path: Path
) -> None:
    for path in undisturbed.glob(f"model.ckpt-{update}.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{update}"\n')
    shutil.copy(undisturbed / "run.json", tmp_path)
    runs.train(**settings(data, tmp_path, do_eval=False))
    assert_same_bits(undisturbed / "model.ckpt-12", tmp_path / "model.ckpt-12")


def test_a_killed_run_started_again_ends_with_the_same_bits(data, undisturbed: Path, tmp_path: Path, capfd) -> None:
    values = settings(data, tmp_path, save_checkpoints_steps=4)
    died = runs.start(runs.flags(**values), before=runs.signal_after(7))  # within the second size
    assert died.returncode == -9, died.stderr
    assert "plan: 12 updates with 138 examples" in died.stdout and "evaluations: 5 to come" in died.stdout, died.stdout
    runs.train(**values)
    told = capfd.readouterr().out
    done = int(re.search(r"model.ckpt-(\d+) at update \1\n", told)[1])  # 4, or later after a better evaluation
    assert f"plan: {12 - done} updates with {138 - ENDS[done - 1]} examples" in told and "previous start" not in told
    assert_same_bits(undisturbed / "model.ckpt-12", tmp_path / "model.ckpt-12")


def test_each_size_trains_as_a_run_of_that_size(data: dict[str, str], undisturbed: Path, tmp_path: Path) -> None:
    """The first updates are those of a run with 6 examples an update, which knows nothing of ramps."""
    plain = settings(data, tmp_path, rampup_batch_size=None, num_accumulation_steps=2)
    runs.train(**{**plain, "num_train_steps": 12})
    for update in (1, 5):
        assert_same_bits(undisturbed / f"model.ckpt-{update}", tmp_path / f"model.ckpt-{update}")
    one, other = (runs.tensors(folder / "model.ckpt-6") for folder in (undisturbed, tmp_path))
    assert any((one[name] != other[name]).any() for name in one)


def test_another_division_of_the_same_sizes_sees_the_same_examples(data, undisturbed: Path, tmp_path: Path) -> None:
    """Micro-batches of 9 instead of 3, without dropout: sums are equal up to rounding."""
    model = runs.write_model(tmp_path / "bert_config.json", runs.MODEL)
    losses = []
    for size in (3, 9):
        folder = tmp_path / str(size)
        division = {"train_batch_size": size, "num_accumulation_steps": 18 // size}
        runs.train(**settings(data, folder, bert_config_file=model, do_eval=False, **division))
        losses.append([point["loss"] for point in runs.metrics(folder, "train")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4)


@pytest.mark.slow
@pytest.mark.horovod
@pytest.mark.skipif(not Path(ranks.MPIRUN).exists(), reason="needs Horovod and mpi4py: bash init_tf.sh --horovod")
def test_the_number_of_ranks_does_not_change_a_bit_of_growing_updates(data: dict[str, str], tmp_path: Path) -> None:
    """Two ranks are killed after update 7, and one goes on from update 6; another one does not stop."""
    changes = {
        "rank_invariant": True, "lr_scaling": "none", "do_eval": False, "save_checkpoints_steps": 3,
        "rampup_seq_length": "16,24,60", "initialization": "informed", "optimizer_type": "adamw",
    }  # fmt: skip
    runs.train(**settings(data, tmp_path / "one", intra_op_threads=1, **changes))
    many = settings(data, tmp_path / "many", **{**changes, "num_accumulation_steps": 3})
    killed = ranks.dying_trainer(
        runs.flags(**many), "if RANK == 0:\n" + textwrap.indent(runs.signal_after(7).strip(), "    ")
    )
    assert ranks.run([*ranks.mpirun(2), *killed], tmp_path / "first").code != 0
    two = tmp_path / "two"
    shutil.copytree(tmp_path / "many", two)
    runs.train(**{**many, "num_accumulation_steps": 6})
    assert_same_bits(tmp_path / "one" / "model.ckpt-12", tmp_path / "many" / "model.ckpt-12")
    whole = ranks.trainer(runs.flags(**{**many, "output_dir": str(two)}))
    ended = ranks.run([*ranks.mpirun(2), *whole], tmp_path / "second")
    assert ended.code == 0, ended.err[-3000:]
    assert_same_bits(tmp_path / "one" / "model.ckpt-12", two / "model.ckpt-12")


def test_cut_records_train_as_records_made_that_short(data: dict[str, str], tmp_path: Path) -> None:
    """The first updates are those of a run on shards whose records were cut before, and later ones are not."""
    short = tmp_path / "short"
    short.mkdir()
    for path in sorted(Path(data["input_files_dir"]).iterdir()):
        records = [*tf.compat.v1.io.tf_record_iterator(str(path))]
        examples = schema.read_examples(records, [path.name] * len(records), 64, 8)
        write_shard(str(short / path.name), schema.encode_examples(truncate_examples(examples, 16)))
    for name, changes in (("ramp", {"rampup_seq_length": "16,24,36"}), ("short", {"input_files_dir": str(short)})):
        runs.train(**settings(data, tmp_path / name, rampup_batch_size=None, do_eval=False, **changes))
    assert_same_bits(tmp_path / "ramp" / "model.ckpt-1", tmp_path / "short" / "model.ckpt-1")
    one, other = (runs.tensors(tmp_path / name / "model.ckpt-2") for name in ("ramp", "short"))
    assert any((one[name] != other[name]).any() for name in one)


def test_both_ramps_and_new_masks_end_with_the_same_bits_after_a_kill(tmp_path: Path, capfd) -> None:
    masked = write_masked_data(tmp_path, runs.WITH_DROPOUT)
    ramps = {**RAMP, "rampup_seq_length": "16,8,60", "train_batch_size": 3}
    for name in ("whole", "killed"):
        values = {**masked, **runs.settings(output_dir=str(tmp_path / name), **ramps)}
        if name == "killed":
            died = runs.start(runs.flags(**values), before=runs.signal_after(7))
            assert died.returncode == -9, died.stderr
        runs.train(**values)
    assert "length ramp-up: records are cut to 16 tokens at first" in capfd.readouterr().out
    assert_same_bits(tmp_path / "whole" / "model.ckpt-12", tmp_path / "killed" / "model.ckpt-12")


@pytest.mark.parametrize(
    ("ramp", "told"), [("16,7,60", r"tokens of a record cannot grow from 16"), ("4,4,60", r"START must be at least 5")]
)
def test_a_length_that_does_not_fit_the_records_is_refused(ramp: str, told: str, data, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        runs.train(**settings(data, tmp_path, rampup_seq_length=ramp))


def test_a_ramp_that_cannot_be_divided_is_refused_before_the_start(data: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--rampup_batch_size=7,6,60: .* cannot grow from 7"):
        runs.train(**settings(data, tmp_path, rampup_batch_size="7,6,60"))


def test_a_size_smaller_than_a_micro_batch_trains(data: dict[str, str], tmp_path: Path) -> None:
    ended = runs.train(**settings(data, tmp_path, rampup_batch_size="1,17,10", num_train_steps=11, do_eval=False))
    assert ended["examples"] == 10 + 18
