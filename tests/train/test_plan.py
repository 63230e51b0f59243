"""What a run announces: counts of updates and evaluations, the remaining time, the next commands.

What a run says before it starts: the learning rate's rule, and flags that have no effect here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Optional

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.config.rampup import RampUp, UpdateSizes
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.run_files.results import Evaluated, Rates
from bert_pretrain.system.files import hash_file
from bert_pretrain.train import plan
from bert_pretrain.train.device import Device
from bert_pretrain.train.evaluation import is_due, num_due
from bert_pretrain.train.job import Job
from tests.config.test_rampup import rampups
from tests.e2e.runs import make_config
from tests.train.small import MODEL

NO_RATES = Rates(*(None for _ in Rates._fields))


def make_job(**values: object) -> Job:
    config = make_config(do_train=True, do_eval=True, train_batch_size=32, **values)
    data = SimpleNamespace(index=SimpleNamespace(num_records=64_000))
    return Job(config, MODEL, World(), Device("cpu", False, 0, tf.float32, Backend.XLA, []), data)


@settings(deadline=None)
@given(
    batch=st.integers(1, 50), start=st.integers(0, 900), between=st.integers(1, 90),
    first=st.integers(0, 40), more=st.integers(0, 40), rampup=st.none() | rampups,
)  # fmt: skip
def test_evaluations_are_counted_as_they_come_due(
    batch: int, start: int, between: int, first: int, more: int, rampup: Optional[RampUp]
) -> None:
    sizes, steps = UpdateSizes(batch, rampup), range(first + 1, first + more + 1)
    expected = sum(is_due(step, sizes, start, between) for step in steps)
    assert num_due(first, first + more, sizes, start, between) == expected


def test_the_plan_is_told_before_the_start() -> None:
    job = make_job(
        num_train_steps=1000, samples_start_eval=0, samples_between_eval=6400, stop_threshold=0.0,
        save_checkpoints_steps=150,
    )  # fmt: skip
    assert list(plan.plan_lines(job, 0)) == [
        "plan: 1,000 updates with 32,000 examples, 0.5 times the training data; a checkpoint every 150 updates",
        "evaluations: 5 to come",
    ]
    assert list(plan.plan_lines(job, 1000)) == []


def test_the_time_to_come_is_that_of_updates_and_evaluations() -> None:
    job = make_job(num_train_steps=1000, samples_start_eval=0, samples_between_eval=6400)
    rates = NO_RATES._replace(updates_per_second=2.0, examples_per_second=64.0)
    assert plan.remaining_time(job, 0, rates, Evaluated({}, 10, 100.0)) == (
        "remaining: about 16 min 40 s at 2 updates/s, evaluations (5 of 1 min 40 s) included"
    )
    assert plan.remaining_time(job, 999, rates, None) == (
        "remaining: about 0.5 s at 2 updates/s, evaluations (1) not included"
    )


def test_the_next_commands_can_be_given_to_a_shell() -> None:
    config = make_config(do_train=True, output_dir="/my runs/1", bert_config_file="/c.json", eval_files_dir="/eval")
    first, *rest = plan.next_commands(config, {"end": "completed", "updates": 7})
    assert first == "next:" and len(rest) == 3
    words = [shlex.split(line) for line in rest]
    assert [line[0] for line in words] == ["evaluate", "export", "report"]
    assert words[0][1:4] == ["python", "-m", "bert_pretrain.run"] and "--output_dir=/my runs/1" in words[0]
    assert "--checkpoint=/my runs/1/model.ckpt-7" in words[1]
    assert words[2][1:] == ["python", "-m", "bert_pretrain.report", "/my runs/1"]
    dashed = make_config(do_train=True, output_dir="-x", bert_config_file="/c.json")
    assert [*plan.next_commands(dashed, {"end": "completed", "updates": 7})][-1].endswith(" ./-x"), "it is no flag"
    assert "  continue  the same command" in plan.next_commands(config, {"end": "interrupted", "updates": 7})
    assert list(plan.next_commands(make_config(do_eval=True), {"end": "completed"})) == []


def test_the_next_commands_name_the_vocabulary_of_the_data(tmp_path: Path) -> None:
    """The user's, else the one that the shards were made with, else the one beside the model."""
    for name in ("model", "data/train"):
        (tmp_path / name).mkdir(parents=True)
    config = make_config(do_train=True, output_dir="out", bert_config_file=str(tmp_path / "model/bert_config.json"))
    shard = str(tmp_path / "data/train/a.tfrecord")

    def named(shards: list[str]) -> str:
        (export,) = (
            line for line in plan.next_commands(config, {"end": "completed", "updates": 7}, shards) if " export" in line
        )
        return next(word for word in shlex.split(export) if word.startswith("--vocab_file="))[len("--vocab_file=") :]

    assert named([shard]) == "VOCAB_FILE"
    beside_model, of_data = tmp_path / "model/vocab.txt", tmp_path / "data/vocab.txt"
    beside_model.write_text("[PAD]\n")
    assert named([shard]) == str(beside_model)
    of_data.write_text("[UNK]\n")
    side = {"origin": {"vocabulary": hash_file(str(of_data))}, "vocab_file": str(tmp_path / "moved")}
    Path(f"{shard}.json").write_text(json.dumps(side))
    assert named([shard]) == str(of_data)
    of_data.write_text("[MASK]\n")  # another one now
    assert named([shard]) == str(beside_model)
    assert named([]) == str(beside_model)


@pytest.mark.parametrize(("end", "command"), [("completed", "ask"), ("interrupted", "export")])
def test_an_exported_model_can_be_asked(end: str, command: str) -> None:
    config = make_config(do_train=True, output_dir="out", bert_config_file="c.json", hf_dir="my model")
    lines = list(plan.next_commands(config, {"end": end, "updates": 7}))
    assert {line.split()[0] for line in lines} & {"ask", "export"} == {command}
    if command == "ask":
        (line,) = (line for line in lines if " ask" in line)
        assert shlex.split(line)[1:] == ["python", "-m", "bert_pretrain.fill_mask", "my model", "... [MASK] ..."]


def say(num_ranks: int = 1, **values: object) -> list[str]:
    config, world = make_config(**values), World()
    world.size = num_ranks
    job = Job(config, MODEL, world, Device("cpu", False, 0, tf.float32, Backend.XLA, []))
    return list(plan.summary_lines(job, PreviousRun()))


def rate(num_ranks: int = 1, **values: object) -> str:
    config = make_config(num_train_steps=100, **values)
    return plan._learning_rate_text(config, num_ranks)


def test_the_rule_of_the_learning_rate_is_stated_with_its_result() -> None:
    assert rate(learning_rate=2e-4, num_warmup_steps=10) == (
        "peak 0.0002 (as given: one process); warm-up over 10 updates, zero at update 100"
    )
    assert rate(8, learning_rate=5e-5, num_warmup_steps=0, horovod=True) == (
        "peak 0.0004 (5e-05 x 8 ranks: --lr_scaling=linear); no warm-up, zero at update 100"
    )
    assert rate(8, learning_rate=5e-5, num_warmup_steps=0, horovod=True, lr_scaling="none").startswith(
        "peak 5e-05 (as given: --lr_scaling=none)"
    )


def test_flags_of_the_exchange_say_what_they_do() -> None:
    assert len(say(do_eval=True)) == 1
    (note, _) = say(do_eval=True, allreduce_fp16=True)
    assert note == "note: --allreduce_fp16: has no effect without --horovod: one process has nothing to all-reduce"
    (note, _) = say(2, do_eval=True, horovod=True, allreduce_fp16=True)
    assert note == "note: --allreduce_fp16: gradients are all-reduced in float16, 0.0 MB an update"
