"""Signals to whole runs, wherever they are; schedulers' environment variables."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from tests.e2e import ranks, runs

NOTHING_TO_SAVE = "stopped by a signal, with nothing to save; the same command starts again\n"
TF_CONFIG = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 1}}
EVALUATIONS = {"do_eval": True, "samples_start_eval": 30, "samples_between_eval": 24, "stop_threshold": 0.0}
# An update of more than ten seconds on fast machines, in one session.run, with one example a micro-batch.
LONG_UPDATES = {"num_accumulation_steps": 40_000, "train_batch_size": 1, "display_loss_steps": 1}


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with evaluations after updates 0, 5, 9 and 12."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**data, **runs.settings(output_dir=str(output_dir), **EVALUATIONS))
    return output_dir


def in_evaluation(update: int, name: str = "SIGTERM") -> str:
    """Python that sends this process a signal at the third batch of the evaluation after an update."""
    return f"""
import os, signal
from bert_pretrain.train import evaluation, hooks
evaluation._SECONDS_BETWEEN_EXCHANGES = 0.0
evaluate, batch_sums = hooks.TrainingHook._evaluate, evaluation.Evaluation._batch_sums
def watched(self, *arguments):
    evaluation.now = self._step
    return evaluate(self, *arguments)
def sums(self, session):
    for number, values in enumerate(batch_sums(self, session)):
        if evaluation.now == {update} and number == 2:
            os.kill(os.getpid(), signal.{name})
        yield values
hooks.TrainingHook._evaluate, evaluation.Evaluation._batch_sums = watched, sums
"""


def evaluations(output_dir: Path) -> list[tuple]:
    """What does not depend on time."""
    names = ("update", "eval_examples", "masked_lm_accuracy", "masked_lm_loss")
    return [tuple(point.get(name) for name in names) for point in runs.metrics(output_dir, "eval")]


def assert_same_end(one: Path, other: Path) -> None:
    values, others = (runs.tensors(path / "model.ckpt-12") for path in (one, other))
    assert values.keys() == others.keys()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name], err_msg=name)


@pytest.mark.parametrize(("update", "name"), [(5, "SIGHUP"), (12, "SIGUSR1")])
def test_an_evaluation_is_left_and_done_at_the_next_start(
    data, undisturbed: Path, tmp_path: Path, update: int, name: str
) -> None:
    values = {**data, **runs.settings(output_dir=str(tmp_path), **EVALUATIONS)}
    stopped = runs.start(runs.flags(**values), before=in_evaluation(update, name))
    assert stopped.returncode == 0, stopped.stderr
    assert f"stopped by a signal after update {update}; the same command continues" in stopped.stdout
    assert f"evaluation after update {update}," not in stopped.stdout
    assert [point[0] for point in evaluations(tmp_path)] == [u for u in (0, 5, 9, 12) if u < update]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["end"], results["updates"]) == ("interrupted", update)
    assert (tmp_path / f"model.ckpt-{update}.index").exists()
    results, expected = runs.train(**values), json.loads((undisturbed / "results.json").read_text())
    for name in ("updates", "end", "target_reached", "eval_examples", "masked_lm_accuracy", "masked_lm_loss"):
        assert results[name] == expected[name], name
    if update < 12:
        assert evaluations(tmp_path) == evaluations(undisturbed)
    assert_same_end(undisturbed, tmp_path)


def test_the_first_evaluation_is_left_without_a_checkpoint(data, tmp_path: Path) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path), **EVALUATIONS))
    stopped = runs.start(arguments, before=in_evaluation(0))
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.endswith(NOTHING_TO_SAVE)
    assert not list(tmp_path.glob("model.ckpt*")) and not (tmp_path / "results.json").exists()


def test_a_target_that_the_left_evaluation_would_have_reached_ends_the_run_there(data, tmp_path: Path) -> None:
    values = {**data, **runs.settings(output_dir=str(tmp_path), **{**EVALUATIONS, "stop_threshold": 0.002})}
    assert runs.start(runs.flags(**values), before=in_evaluation(5)).returncode == 0
    results = runs.train(**values)
    assert (results["end"], results["updates"]) == ("target_reached", 5)


# --- While something runs that does not look for signals ---


def in_first_update(arguments: list[str]) -> subprocess.Popen:
    """A run that is in its first session.run, and leaves it two seconds after a signal if there is nothing to save."""
    code = """
import runpy
from bert_pretrain.distributed import stop
from bert_pretrain.train.hooks import TrainingHook
stop._SECONDS_TO_LEAVE = 2.0
before_run = TrainingHook.before_run
def told(self, run_context):
    print("an update begins", flush=True)
    return before_run(self, run_context)
TrainingHook.before_run = told
runpy.run_module("bert_pretrain.run", run_name="__main__", alter_sys=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "an update begins\n" in iter(process.stdout.readline, ""), process.stderr.read()
    time.sleep(0.3)  # nothing tells from outside that session.run has begun
    return process


def test_a_second_signal_ends_a_run_inside_an_update(data: dict[str, str], tmp_path: Path) -> None:
    process = in_first_update(runs.flags(**data, **runs.settings(output_dir=str(tmp_path), **LONG_UPDATES)))
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # the first signal only asks
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, "after the update it would be 0"


def test_a_signal_inside_the_first_update_ends_the_run_with_nothing_to_save(data, tmp_path: Path) -> None:
    process = in_first_update(runs.flags(**data, **runs.settings(output_dir=str(tmp_path), **LONG_UPDATES)))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, NOTHING_TO_SAVE), err
    assert not list(tmp_path.glob("model.ckpt*")), "after the update there would be one"


# What a run does before its first update, and the function that a signal finds it in.
BEFORE_TRAINING = {
    "indexing": "bert_pretrain.train.job.Source.open",
    "building": "bert_pretrain.train.model_fn.build_train_step",
    "warming_up": "bert_pretrain.train.hooks.TrainingHook._warm_up",
}


def busy(place: str, only_rank: Optional[int] = None, seconds_to_leave: float = 10_000) -> str:
    """Python that makes a function receive SIGTERM and never end, unless the signal takes it away.

    The warm-up goes on after half a second. A process that has nothing to save leaves wherever it is, but not before
    `seconds_to_leave`.
    """
    owner, _, name = place.rpartition(".")
    return f"""
import importlib, os, signal, time
from bert_pretrain.distributed import stop
stop._SECONDS_TO_LEAVE = {seconds_to_leave}
owner = "{owner}"
module = importlib.import_module(owner if owner.rpartition(".")[2].islower() else owner.rpartition(".")[0])
holder = module if module.__name__ == owner else getattr(module, owner.rpartition(".")[2])
function = getattr(holder, "{name}")
def busy(*arguments, **options):
    if {only_rank} in (None, globals().get("RANK")):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5 if "{name}" == "_warm_up" else 10_000)
    return function(*arguments, **options)
setattr(holder, "{name}", busy)
"""


@pytest.mark.parametrize("activity", BEFORE_TRAINING)
def test_a_signal_before_the_first_update_ends_the_run_cleanly(data, tmp_path: Path, activity: str) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path), enable_device_warmup=True))
    stopped = runs.start(arguments, before=busy(BEFORE_TRAINING[activity]), seconds=60)
    assert stopped.returncode == 0 and "Traceback" not in stopped.stderr, stopped.stderr
    assert stopped.stdout.endswith(NOTHING_TO_SAVE)
    assert not list(tmp_path.glob("model.ckpt*"))


def test_tf_config_is_ignored_with_one_line(data: dict[str, str], tmp_path: Path) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path), num_train_steps=1))
    done = runs.start(arguments, before=f"import os\nos.environ['TF_CONFIG'] = {json.dumps(TF_CONFIG)!r}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("note: TF_CONFIG in the environment ignored") == 1


# --- Two ranks, of which one receives the signal ---

two_ranks = pytest.mark.horovod


def two(arguments: list[str], before: str) -> list[str]:
    return [*ranks.mpirun(2), *ranks.dying_trainer(arguments, before)]


@two_ranks
def test_a_rank_that_is_stopped_before_it_joins_ends_the_job(data: dict[str, str], tmp_path: Path) -> None:
    """With exit code 0 it would leave the other one waiting."""
    pytest.importorskip({"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"))
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path / "out")))
    ended = ranks.run(
        two(arguments, busy("bert_pretrain.distributed.connection._connect", only_rank=1, seconds_to_leave=1)),
        tmp_path, seconds=60,
    )  # fmt: skip
    assert ended.code == 128 + signal.SIGTERM, ended.err
    assert ranks.left_behind(str(tmp_path)) == []


@pytest.mark.slow
@two_ranks
def test_a_rank_that_is_stopped_while_it_indexes_ends_both_cleanly(data: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip({"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"))
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path / "out")))
    ended = ranks.run(two(arguments, busy(BEFORE_TRAINING["indexing"], only_rank=1)), tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.count(NOTHING_TO_SAVE) == 1 and "Traceback" not in ended.err
    assert ranks.left_behind(str(tmp_path)) == []
