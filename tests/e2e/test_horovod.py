"""Several ranks under mpirun: one big batch, one evaluation, one end, output from rank 0 alone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from bert_pretrain.distributed.world import World
from tests.e2e import ranks, runs
from tests.e2e.rank_jobs import gradient
from tests.e2e.test_dynamic_masking import write_masked_data
from tests.e2e.test_rank_invariant import differing
from tests.train.small import MODEL, write_shards
from tests.train.test_train_step import relative_difference

pytest.importorskip(
    {"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"), reason="needs Horovod and mpi4py: bash init_tf.sh --horovod"
)
pytestmark = pytest.mark.horovod

HAS_HALF = ranks.EXCHANGE == "horovod"  # MPI has no float16
EXAMPLES = 24  # of an update, however it is cut
KEY_BIAS = re.compile(r"/key/bias(/|$)")  # its true gradient is zero, so only the gradient itself can be compared
INVARIANT = {"lamb": {}, "adam": {"native_kernels": False}}  # optimizers with the settings of their backends
LEFT = {"do_eval": True, "num_train_steps": 3, "samples_start_eval": 20, "samples_between_eval": 1000,
        "max_eval_steps": 4, "stop_threshold": 0.0}  # fmt: skip
Data = Dict[str, str]


@pytest.fixture(scope="module")
def exact(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same data under a model without dropout."""
    path = tmp_path_factory.mktemp("exact") / "bert_config.json"
    return {**data, "bert_config_file": runs.write_model(path, MODEL), "use_xla": False}


def cut(num_ranks: int, num_micro_batches: int) -> dict[str, int]:
    """The settings that give a rank its part of an update of EXAMPLES."""
    return {
        "num_accumulation_steps": num_micro_batches,
        "train_batch_size": EXAMPLES // (num_ranks * num_micro_batches),
    }


def gradient_jobs(num_ranks: int, exact: dict, folder: Path) -> list[dict]:
    """Jobs whose results are W-A.npz, and W-half.npz with gradients sent as float16."""
    cases = {f"{num_ranks}-{a}": cut(num_ranks, a) for a in (1, 2, 3)}
    if HAS_HALF:
        cases[f"{num_ranks}-half"] = {**cut(num_ranks, 2), "allreduce_fp16": True}
    return [
        {"do": "gradient", "settings": {**exact, **changes}, "to": f"{folder}/{name}.npz"}
        for name, changes in cases.items()
    ]


def invariant(data: dict, output_dir: Path, optimizer: str, num_ranks: int) -> dict[str, object]:
    """Four updates with --rank_invariant, of a model with dropout."""
    settings = five_updates(data, output_dir, optimizer, num_train_steps=4, num_accumulation_steps=4 // num_ranks)
    return {**settings, **INVARIANT[optimizer], "rank_invariant": True}


def five_updates(exact: dict, output_dir: Path, optimizer: str, **changes: object) -> dict[str, object]:
    values = runs.settings(output_dir=str(output_dir), num_train_steps=5, learning_rate=1e-3, lr_scaling="none")
    return {**exact, **values, "optimizer_type": optimizer, **changes}


# --- A session of two ranks that does many jobs, and what each of them left ---


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """An update of one rank whose masks are drawn while training, in one micro-batch."""
    data = write_masked_data(tmp_path_factory.mktemp("masked"), MODEL)
    return {**data, "use_xla": False, **cut(1, 1)}


@pytest.fixture(scope="module")
def two(exact: dict, data: Data, masked: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which two ranks did everything that can be done in one start."""
    folder = tmp_path_factory.mktemp("two")
    other = tmp_path_factory.mktemp("other")
    write_shards(other / "train", 9, [17])
    runs.write_model(other / "bert_config.json", MODEL)
    evaluating = {
        **exact, **runs.settings(do_eval=True, samples_start_eval=24, samples_between_eval=24, stop_threshold=0.002)
    }  # fmt: skip
    plain = {**exact, **runs.settings(num_train_steps=1)}
    jobs = {
        "speak": {"do": "speak"},
        "lamb": {"settings": five_updates(exact, folder / "lamb", "lamb")},
        "adam": {"settings": five_updates(exact, folder / "adam", "adam")},
        "target": {"settings": {**evaluating, "output_dir": f"{folder}/target"}},
        "again": {"settings": {**evaluating, "output_dir": f"{folder}/target"}},
        "root_evaluates": {
            "settings": {
                **exact, "do_eval": True, "eval_batch_size": 50, "is_dist_eval_enabled": False,
                "output_dir": f"{folder}/alone", "eval_checkpoint_path": f"{folder}/target/model.ckpt-2",
            },
        },
        "results_lost": {"do": "remove", "path": f"{folder}/adam/results.json"},
        "results_again": {"settings": five_updates(exact, folder / "adam", "adam")},
        "other_batch": {
            "settings": five_updates(exact, folder / "lamb", "lamb", num_train_steps=6, train_batch_size=1),
        },
        "other_flags": {
            "settings": {**plain, "output_dir": f"{folder}/refused"},
            "of_rank_1": {"train_batch_size": 6, "seed": 3, "output_dir": f"{folder}/elsewhere"},
        },
        "other_data": {
            "settings": {**plain, "output_dir": f"{folder}/refused"},
            "of_rank_1": {"input_files_dir": f"{other}/train"},
        },
        "no_data": {
            "settings": {**plain, "output_dir": f"{folder}/refused"},
            "of_rank_1": {"input_files_dir": f"{other}/nowhere"},
        },
        "no_checkpoint": {
            "settings": {**plain, "output_dir": f"{folder}/refused", "eval_files_dir": exact["eval_files_dir"],
                         "do_train": False, "do_eval": True},
        },
        **{f"invariant_{name}": {"settings": invariant(data, folder / f"invariant_{name}", name, 2)}
           for name in INVARIANT},
        "left": {"settings": {**data, **runs.settings(output_dir=f"{folder}/left", **LEFT)}, "stopped_at": 2},
        "left_again": {"settings": {**data, **runs.settings(output_dir=f"{folder}/left", **LEFT)}},
        "masked": {"do": "gradient", "settings": {**masked, **cut(2, 3)}, "to": f"{folder}/masked.npz"},
    }  # fmt: skip
    listed = [{"do": "run", **job} for job in jobs.values()]
    listed += gradient_jobs(2, exact, folder)
    _, answers = ranks.run_jobs(2, listed, folder)
    (folder / "named_answers.json").write_text(json.dumps(dict(zip(jobs, answers))))
    (folder / "statistics.json").write_text(json.dumps(answers[len(jobs) :]))
    return folder


@pytest.fixture(scope="module")
def answers(two: Path) -> dict[str, list]:
    return json.loads((two / "named_answers.json").read_text())


@pytest.fixture(scope="module")
def four(exact: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which four ranks, more than there are shards, computed gradients."""
    folder = tmp_path_factory.mktemp("four")
    _, answers = ranks.run_jobs(4, gradient_jobs(4, exact, folder), folder)
    (folder / "statistics.json").write_text(json.dumps(answers))
    return folder


# --- One big batch ---


@pytest.mark.parametrize("num_ranks", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_gradient_is_that_of_one_big_batch(num_ranks: int, exact: dict, request: pytest.FixtureRequest) -> None:
    whole, statistics = gradient(World(), {**exact, **cut(1, 1)})
    if num_ranks == 1:
        for a in (2, 3):
            values, counted = gradient(World(), {**exact, **cut(1, a)})
            assert relative_difference(whole, values) < 1e-5
            np.testing.assert_allclose(counted[:9], statistics[:9], rtol=1e-5)
        return
    folder = request.getfixturevalue({2: "two", 4: "four"}[num_ranks])
    for name, tolerance in (*((a, 1e-5) for a in (1, 2, 3)), *([("half", 1e-3)] if HAS_HALF else [])):
        with np.load(folder / f"{num_ranks}-{name}.npz") as values:
            assert relative_difference(whole, dict(values)) < tolerance, name
    # Losses and counts are those of all ranks, on every rank, also where gradients are sent as float16.
    for counted_by_rank in json.loads((folder / "statistics.json").read_text()):
        for counted in counted_by_rank:
            np.testing.assert_allclose(counted[:9], statistics[:9], rtol=1e-5)


def test_masks_drawn_while_training_are_those_of_one_big_batch(masked: dict, two: Path) -> None:
    whole, _ = gradient(World(), masked)
    with np.load(two / "masked.npz") as values:
        assert relative_difference(whole, dict(values)) < 1e-5
    static, _ = gradient(World(), {**masked, "dynamic_masking": False})
    assert relative_difference(whole, static) > 1e-2


@pytest.mark.slow
@pytest.mark.skipif(ranks.EXCHANGE == "mpi", reason="the tests around it run over MPI alone")
def test_mpi_alone_computes_the_same(exact: dict, two: Path, tmp_path: Path) -> None:
    settings = five_updates(exact, tmp_path / "lamb", "lamb", do_eval=True, stop_threshold=0.0)
    jobs = [{"do": "run", "settings": settings}, *gradient_jobs(2, exact, tmp_path)[:1]]
    _, (codes, _) = ranks.run_jobs(2, jobs, tmp_path, TEST_EXCHANGE="mpi")
    assert codes == [0, 0]
    assert json.loads((tmp_path / "lamb" / "results.json").read_text())["eval_examples"] == 1003
    with np.load(two / "2-1.npz") as one, np.load(tmp_path / "2-1.npz") as other:
        assert relative_difference(dict(one), dict(other)) < 1e-5


@pytest.mark.parametrize("optimizer", INVARIANT)
def test_with_rank_invariant_two_ranks_have_the_bits_of_one(optimizer: str, data: Data, two: Path, tmp_path) -> None:
    runs.train(**invariant(data, tmp_path, optimizer, 1))
    assert differing(tmp_path / "model.ckpt-4", two / f"invariant_{optimizer}" / "model.ckpt-4") == []


@pytest.mark.parametrize("optimizer", ["lamb", "adam"])
def test_five_updates_are_those_of_one_big_batch(optimizer: str, exact: dict, two: Path, tmp_path: Path) -> None:
    one = five_updates(exact, tmp_path, optimizer, num_accumulation_steps=1, train_batch_size=12)
    runs.train(**one)
    whole, parts = (runs.tensors(path / "model.ckpt-5") for path in (tmp_path, two / optimizer))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        if not KEY_BIAS.search(name):
            difference = np.linalg.norm((value - parts[name]).ravel())
            assert difference <= 1e-4 * np.linalg.norm(np.ravel(value)), name
    # What is logged is the loss over all ranks.
    losses = [[point["loss"] for point in runs.metrics(path, "train")][:5] for path in (tmp_path, two / optimizer)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


# --- Evaluating and stopping together ---


def test_two_ranks_evaluate_each_example_once_and_leave_at_the_same_update(exact, two, answers, tmp_path) -> None:
    results = json.loads((two / "target" / "results.json").read_text())
    assert answers["target"] == [0, 0]
    assert (results["ranks"], results["updates"], results["examples"]) == (2, 2, 24)
    assert (results["end"], results["eval_examples"]) == ("target_reached", 1003)
    assert (two / "target" / "model.ckpt-2.index").exists()
    checkpoint = {"eval_checkpoint_path": f"{two}/target/model.ckpt-2"}
    one = runs.train(**exact, do_eval=True, eval_batch_size=50, output_dir=str(tmp_path), **checkpoint)
    alone = json.loads((two / "alone" / "results.json").read_text())
    assert alone["eval_examples"] == one["eval_examples"] == 1003
    for name in ("masked_lm_accuracy", "next_sentence_accuracy"):
        assert results[name] == alone[name] == one[name]
    for name in ("masked_lm_loss", "next_sentence_loss"):
        assert alone[name] == pytest.approx(one[name], rel=1e-6)
        assert results[name] == pytest.approx(one[name], rel=1e-6)


def test_two_ranks_leave_an_evaluation_together_and_do_it_at_the_next_start(two: Path, answers: dict) -> None:
    assert answers["left"] == answers["left_again"] == [0, 0]
    out = (two / "out.txt").read_text()
    assert out.count("stopped by a signal after update 2; the same command continues") == 1
    assert f"continuing {two}/left/model.ckpt-2 at update 2" in out
    evaluations = runs.metrics(two / "left", "eval")
    assert [(point["update"], point["eval_examples"]) for point in evaluations] == [(0, 96), (2, 96), (3, 96)]
    assert json.loads((two / "left" / "results.json").read_text())["end"] == "completed"


def test_a_finished_run_ends_at_once_on_both_ranks(two: Path, answers: dict) -> None:
    assert answers["again"] == [0, 0]
    assert (two / "out.txt").read_text().count("target holds this run, finished at update 2") == 1
    assert len(runs.metrics(two / "target", "train")) == 2


def test_a_run_killed_before_its_results_gets_them_on_both_ranks(two: Path, answers: dict) -> None:
    assert answers["results_again"] == [0, 0]
    results = json.loads((two / "adam" / "results.json").read_text())
    assert (results["updates"], results["examples"], results["end"]) == (5, 60, "completed")
    assert len(runs.metrics(two / "adam", "train")) == 5


def test_going_on_with_another_batch_is_said(two: Path, answers: dict) -> None:
    assert answers["other_batch"] == [0, 0]
    told = "an update had 2 ranks x 2 micro-batches x 3 examples .* has 2 x 2 x 1 now; .* continues at example 20"
    assert re.search(told, (two / "out.txt").read_text())
    assert json.loads((two / "lamb" / "results.json").read_text())["updates"] == 6


# --- One voice ---


def test_root_alone_writes_and_speaks(two: Path) -> None:
    out = (two / "out.txt").read_text()
    for line in ("update 1/5 ", "evaluation after update 2, 1003 examples"):
        assert out.count(line) == {"update 1/5 ": 2}.get(line, 1), line
    assert "note: --allreduce_post_accumulation=False has no effect" in out
    assert "peak 0.001 (as given: --lr_scaling=none)" in out and "peak 0.02 (0.01 x 2 ranks: --lr_scaling" in out
    held = {path.name for path in (two / "target").iterdir()}
    assert {name.partition("-")[0].partition(".tfevents")[0] for name in held} == {
        "model.ckpt", "best", "checkpoint", "run.json", "results.json", "metrics.jsonl", "bert_dllog.json",
        "events.out",
    }  # fmt: skip
    assert sum(name.startswith("events.out") for name in held) == 1
    assert [p for p in (two / "tmp").iterdir() if "bert" in p.name or "tmp" in p.name] == []
    assert not (two / "elsewhere").exists()


def test_other_ranks_words_carry_their_number(two: Path) -> None:
    lines = (two / "err.txt").read_text().splitlines()
    for line in ("rank 0 has something to say", "[rank 1] rank 1 has something to say"):
        assert lines.count(line) == 1
    assert sorted(line for line in lines if line.endswith("and more")) == ["[rank 1] and more", "and more"]


# --- Before the first update ---


def test_a_rank_that_differs_is_named_with_what_differs(answers: dict, two: Path) -> None:
    told, exit_code = answers["other_flags"]
    assert told.startswith("rank 1 differs from rank 0 in ")
    for difference in (f"--output_dir ('{two}/elsewhere', ", "--seed (3, ", "--train_batch_size (6, "):
        assert difference in told
    assert exit_code == "2"
    told, exit_code = answers["other_data"]
    assert told.startswith("rank 1 differs from rank 0 in --input_files_dir (")
    assert "train data's records (17, rank 0 has 120)" in told and exit_code == "2"
    told, exit_code = answers["no_data"]
    assert re.fullmatch(r"rank 1 of 2: --input_files_dir: \S+/nowhere: no such directory.*", told)
    assert exit_code == "2"
    told, exit_code = answers["no_checkpoint"]
    assert re.fullmatch(r"--do_eval: \S+ holds no checkpoint; give .*", told) and exit_code == "2"


def different_folders(folder: Path, data: Data) -> list[str]:
    """A job whose ranks find different models under the same relative path, since each starts in its own folder."""
    for name, layers in (("a", 2), ("b", 3)):
        (folder / name).mkdir()
        runs.write_model(folder / name / "model.json", MODEL.__class__(**{**vars(MODEL), "num_hidden_layers": layers}))
    values = {**data, **runs.settings(output_dir=str(folder / "out")), "bert_config_file": "model.json"}
    rank = ranks.trainer(runs.flags(**values))
    before = ranks.mpirun(1)
    return [*before, "--wdir", str(folder / "a"), *rank, ":", "-np", "1", "--wdir", str(folder / "b"), *rank]


def test_different_models_end_the_job_with_one_line(data: Data, tmp_path: Path) -> None:
    ended = ranks.run(different_folders(tmp_path, data), tmp_path, 60)
    assert ended.code == 2
    errors = [line for line in ended.err.splitlines() if "error:" in line]
    assert len(errors) == 1 and "Traceback" not in ended.err
    assert errors[0].startswith("error: rank 1 differs from rank 0 in model num_hidden_layers (3, ")
    assert not (tmp_path / "out").exists()
    assert ranks.left_behind(str(tmp_path)) == []


def test_mpirun_without_horovod_is_refused(data: Data, tmp_path: Path) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path / "out")))
    ended = ranks.run([*ranks.mpirun(2), sys.executable, "-m", "bert_pretrain.run", *arguments], tmp_path, 60)
    assert ended.code == 2
    assert "error: " in ended.err and "--horovod" in ended.err
    assert not (tmp_path / "out").exists()


# --- Bad days ---


def flags(data: Data, output_dir: Path, **changes: object) -> list[str]:
    """A run with dropout that goes on for 100 updates."""
    values = {
        **data, **runs.settings(output_dir=str(output_dir), num_train_steps=100), "use_xla": False,
        "save_checkpoints_steps": 20, **changes,
    }  # fmt: skip
    return runs.flags(**values)


def command(data: Data, output_dir: Path, before: str = "") -> list[str]:
    """Two ranks of that run; `before` is Python that each executes first."""
    arguments = flags(data, output_dir)
    rank = ranks.dying_trainer(arguments, before) if before else ranks.trainer(arguments)
    return [*ranks.mpirun(2), *rank]


def launched(arguments: list[str]) -> list[str]:
    """The command of scripts/run_multi_card_FPS.sh."""
    return [sys.executable, "-m", "bert_pretrain.launch", "--intra_op_threads=1", *arguments]


def on_rank_1(at_update: int, statement: str) -> str:
    """Python that makes rank 1 execute a statement after an update."""
    return f"""
if RANK == 1:
    import signal, time
    from bert_pretrain.train.hooks import TrainingHook
    report = TrainingHook._report
    def disturbed(self, update):
        report(self, update)
        if self._step == {at_update}:
            {statement}
    TrainingHook._report = disturbed
"""


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = ranks.run(command(data, folder / "out"), folder)
    assert ended.code == 0, ended.err
    return folder / "out"


def assert_same_end(one: Path, other: Path) -> None:
    values, others = (runs.tensors(path / "model.ckpt-100") for path in (one, other))
    assert values.keys() == others.keys()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name], err_msg=name)


@pytest.mark.slow
def test_sigterm_to_one_rank_ends_both_with_a_checkpoint(data: Data, undisturbed: Path, tmp_path: Path) -> None:
    before = on_rank_1(7, "os.kill(os.getpid(), signal.SIGTERM)")
    stopped = ranks.run(command(data, tmp_path / "out", before), tmp_path)
    assert stopped.code == 0, stopped.err
    assert stopped.out.count("stopped by a signal after update 8; the same command continues") == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["end"], results["updates"]) == ("interrupted", 8)
    assert (tmp_path / "out" / "model.ckpt-8.index").exists()
    again = ranks.run(command(data, tmp_path / "out"), tmp_path)
    assert again.code == 0, again.err
    assert again.out.count(f"continuing {tmp_path}/out/model.ckpt-8 at update 8") == 1
    assert_same_end(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_killed_and_started_again_by_the_launcher_ends_bit_for_bit_the_same(data, undisturbed, tmp_path) -> None:
    job = ranks.start(launched([*flags(data, tmp_path / "out"), "--max_restarts=2"]), tmp_path, NP="2")
    job.wait_for(r"update 2[5-9]/100 ")
    os.kill(job.pid_of(random.choice([0, 1])), signal.SIGKILL)
    ended = job.end()
    assert ended.code == 0, ended.err
    assert "The job ended with exit code 137; restart 1 of 2 from the last checkpoint." in ended.err
    assert f"continuing {tmp_path}/out/model.ckpt-" in ended.out
    assert_same_end(undisturbed, tmp_path / "out")
    assert ranks.left_behind(str(tmp_path)) == []


@pytest.mark.slow
def test_gloo_ends_bit_for_bit_as_mpi(data: Data, undisturbed: Path, tmp_path: Path) -> None:
    ended = ranks.run(launched(flags(data, tmp_path / "out")), tmp_path, NP="2", HOROVOD_LAUNCHER="gloo")
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "out" / "results.json").read_text())["ranks"] == 2
    assert_same_end(undisturbed, tmp_path / "out")


@pytest.mark.slow
def test_eight_ranks_train_and_evaluate(data: Data, tmp_path: Path) -> None:
    arguments = flags(data, tmp_path / "out", num_train_steps=2, do_eval=True)
    ended = ranks.run(launched(arguments), tmp_path, NP="8")
    assert ended.code == 0, ended.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["ranks"], results["updates"], results["examples"]) == (8, 2, 96)
    assert (results["end"], results["eval_examples"]) == ("completed", 1003)


def test_a_bad_record_that_one_rank_meets_ends_the_job(data: Data, tmp_path: Path) -> None:
    before = """
if RANK == 1:
    from bert_pretrain.data.shards.shard_index import ShardIndex
    read = ShardIndex.read
    def bad(self, records):
        if 11 in records and len(records) == 6:
            raise ValueError("part-00000.tfrecord:99: the record at this byte is damaged")
        return read(self, records)
    ShardIndex.read = bad
"""
    ended = ranks.run(command(data, tmp_path / "out", before), tmp_path, 60)
    assert ended.code == 2, ended.err
    assert "[rank 1] error: part-00000.tfrecord:99: the record at this byte is damaged" in ended.err
    assert "Traceback" not in ended.err
    assert ranks.left_behind(str(tmp_path)) == []


@pytest.mark.slow
def test_a_rank_that_stands_still_is_named_and_ends_the_job(data: Data, tmp_path: Path) -> None:
    patience = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "4", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "8"}
    sleeps = ranks.start(
        command(data, tmp_path / "a", on_rank_1(7, "time.sleep(600)")), tmp_path / "sleeps", **patience
    )
    is_stopped = ranks.start(
        command(data, tmp_path / "b", on_rank_1(7, "os.kill(os.getpid(), signal.SIGSTOP)")),
        tmp_path / "stop",
        **patience,
    )
    ended = sleeps.end(60)
    assert ended.code == 1
    assert re.search(r"Missing ranks:\s+1!?: \[", ended.err), ended.err
    assert "error: rank 0: a collective failed: another rank exited or never joined" in ended.err
    ended = is_stopped.end(60)
    assert ended.code == 1
    assert re.search(r"warning: rank 1 \(process \d+\) is stopped and the others wait for it", ended.err)
    assert re.search(r"error: rank 1 \(process \d+\) was stopped for \d+ seconds while the others waited", ended.err)
    assert ranks.left_behind(str(tmp_path)) == []
