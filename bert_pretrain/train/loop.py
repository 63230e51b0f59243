"""The life of a run: open the job, compare the ranks, continue or start, train or evaluate, write results.

Every rank goes through it together.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Callable, Dict, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import remote_output
from bert_pretrain.checkpoints.remote_output import RemoteOutput
from bert_pretrain.checkpoints.resume import PreviousRun, load_previous_run, make_output_dir
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.config.training import Config
from bert_pretrain.data import schema
from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.world import World
from bert_pretrain.mlperf import mllog
from bert_pretrain.mlperf.mllog import MlperfLog
from bert_pretrain.model import variables
from bert_pretrain.run_files import results, run_json
from bert_pretrain.run_files.results import Outcome
from bert_pretrain.system.console import log
from bert_pretrain.system.files import printable
from bert_pretrain.system.locks import TRAINING, DirectoryLock
from bert_pretrain.tensorflow_compat import estimator
from bert_pretrain.train import device, plan, start_checks
from bert_pretrain.train.evaluation import conclude_training, evaluate_alone, is_due, is_evaluation_done
from bert_pretrain.train.forward import ratio
from bert_pretrain.train.hooks import TrainingRun
from bert_pretrain.train.job import Job, describe_job, evaluation_input, open_on_all_ranks, timed_run, training_input
from bert_pretrain.train.model_fn import make_model_fn
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput, peak_flops, training_flops

CheckEnd = Callable[[Dict[str, Any], bool], None]


def run_job(config: Config, world: World, check_end: CheckEnd = lambda run, is_new: None) -> int:
    """Does what the settings ask for; returns the exit code.

    check_end(run, is_new) is called on rank 0 before the first update, with the content of run.json and whether the run
    begins here: ValueError for what would fail after the training.
    ValueError, one line, for anything that is wrong with the input.
    """
    begin = time.time()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    job = open_on_all_ranks(config, world)
    description = describe_job(job)
    facts = agreement.comparable_facts(description, variables.variable_shapes(job.model))
    agreement.check_same_facts(world, facts)
    lock = agreement.on_all_ranks(world, lambda: _lock(config, world), names_rank=False)
    output = None
    try:
        output = remote_output.open_output(config, world)
        previous = agreement.from_root(world, lambda: load_previous_run(config.run, job.model, description))
        agreement.from_root(world, lambda: _check_start(job, previous, description, check_end))
        logger = agreement.on_all_ranks(world, lambda: _open_logger(job, previous, begin))
        try:
            with _explained_input_errors():
                _train_or_evaluate(job, previous, logger, description, output)
        finally:
            logger.close()
        return remote_output.finish_output(output, config, world)
    except ValueError:  # of an update that is refused, for example, after a checkpoint
        if output:
            output.finish()
        raise
    finally:
        if output:
            output.release()
        if lock:
            lock.release()


def _check_start(job: Job, previous: PreviousRun, description: dict[str, Any], check_end: CheckEnd) -> None:
    """On rank 0, before the first update: what the data teach, and what the end of the run needs."""
    run, num_updates = job.config.run, job.config.optim.num_train_steps
    check_end(description, previous.checkpoint is None)
    if not (run.do_train and previous.is_finished(num_updates, run.stop_threshold)):
        start_checks.judge_data(job)
        start_checks.warn_of_full_disk(job, previous)


def _lock(config: Config, world: World) -> Optional[DirectoryLock]:
    """Rank 0 holds output_dir for the job while it trains; an evaluation alone needs no lock."""
    if not (config.run.do_train and world.is_root):
        return None
    make_output_dir(config.run.output_dir)
    return DirectoryLock(config.run.output_dir, TRAINING, log.info)


def _open_logger(job: Job, previous: PreviousRun, begin: float) -> RunLogger:
    mlperf_log = _open_mllog(job, previous, begin) if job.config.mlperf.mlperf else MlperfLog()
    return RunLogger(job.config, job.world.is_root, mlperf_log)


def _open_mllog(job: Job, previous: PreviousRun, begin: float) -> MlperfLog:
    shards = [*job.training_source.index.paths, *job.evaluation_source.index.paths]
    is_first_of_host, is_resumed = job.world.local_rank == 0, previous.checkpoint is not None
    return mllog.open_mllog(timed_run(job), begin, shards, job.world.is_root, is_first_of_host, is_resumed)


def _train_or_evaluate(
    job: Job,
    previous: PreviousRun,
    logger: RunLogger,
    description: dict[str, Any],
    output: Optional[RemoteOutput],
) -> None:
    """Does what the settings ask for, writes results.json and prints the results row."""
    run, num_updates = job.config.run, job.config.optim.num_train_steps
    # results.json of a run that has nothing left to train
    finished = previous.results if run.do_train and previous.is_finished(num_updates, run.stop_threshold) else None
    if finished:
        logger.info(
            f"{run.output_dir} holds this run, finished at update {previous.step}; choose another to train anew"
        )
    if finished and is_evaluation_done(job, previous):
        for notice in previous.notices:
            logger.info(f"note: {notice}")
        logger.info(results.results_row(finished))
        return
    for line in plan.summary_lines(job, previous):
        logger.info(line)
    if not run.do_train:
        evaluate_alone(job, previous, logger)
        return
    logger.forget_later(previous.step if previous.checkpoint else -1, previous.start_times())
    history = run_json.with_history(description, previous.description, logger.begin, previous.step)
    logger.write_json(run_json.RUN_JSON, history)
    logger.describe(description["settings"])
    is_trained = finished is not None or previous.step >= num_updates
    content = conclude_training(job, previous, logger) if is_trained else _train(job, previous, logger, output)
    logger.write_json(results.RESULTS_JSON, content)
    logger.info(results.results_row(content))
    for line in plan.next_commands(job.config, content, job.training_source.index.paths):
        logger.info(line)


def _train(job: Job, previous: PreviousRun, logger: RunLogger, output: Optional[RemoteOutput]) -> dict[str, Any]:
    """Trains from the newest checkpoint, or from the start; returns the content of results.json."""
    config, world = job.config, job.world
    outcome = Outcome(
        initial=previous.initial,
        latest=previous.latest,
        latest_update=previous.latest_update,
        must_evaluate_first=_must_evaluate_first(job, previous),
    )
    examples, throughput, writer = training_input(job, first_update=previous.updates_read), Throughput(), None
    if world.is_root:
        writer = CheckpointWriter(config.run, previous.kept_checkpoints, output.on_written if output else None)
    evaluated = evaluation_input(job) if job.evaluation else None
    run = TrainingRun(job, previous, logger, examples, evaluated, writer, throughput, outcome)
    trainer = estimator.Estimator(make_model_fn(run), _model_dir(config, world), _estimator_config(job))
    with writer or contextlib.nullcontext():
        trainer.train(examples, hooks=world.hooks(), max_steps=config.optim.num_train_steps)
    num_examples = job.update_sizes.total(outcome.step)
    return results.results_content(
        outcome, throughput.total(), world.size, job.device.name, num_examples, _utilization(job, throughput)
    )


def _must_evaluate_first(job: Job, previous: PreviousRun) -> bool:
    """True for a new run, and where the evaluation after the previous start's last update was left."""
    run, step = job.config.run, previous.step
    is_left = not previous.is_evaluated and is_due(
        step, job.update_sizes, run.samples_start_eval, run.samples_between_eval
    )
    return step == 0 or is_left


def _estimator_config(job: Job) -> estimator.RunConfig:
    """Estimator's own savers and loggers are off: they would act on every rank. TrainingHook does their work."""
    return estimator.RunConfig(
        save_checkpoints_steps=None,
        save_checkpoints_secs=None,
        save_summary_steps=None,
        log_step_count_steps=None,
        session_config=device.session_config(job.config.device, job.device.gpu, job.world.local_size),
    )


def _model_dir(config: Config, world: World) -> str:
    """Where Estimator looks for a checkpoint: a directory that never exists. model_fn chooses what is restored.

    TensorFlow has no names that are not UTF-8, such as output_dir may have.
    """
    return printable(os.path.join(config.run.output_dir, f"rank-{world.rank}"))


def _utilization(job: Job, throughput: Throughput) -> Optional[float]:
    """Useful FLOP/s of all ranks / peak FLOP/s of all ranks, measured at the same time; None where none was timed."""
    settings = job.config.device
    session_config = device.session_config(settings, job.device.gpu, job.world.local_size)
    name, is_gpu, dtype = job.device.name, job.device.is_gpu, job.device.compute_dtype
    peak = peak_flops(name, is_gpu, settings.peak_tflops, session_config, dtype)
    (peaks,) = job.world.host_allreduce(np.array([peak]))
    sums, seconds = throughput.work()
    return ratio(training_flops(sums, job.model), peaks * seconds)


@contextlib.contextmanager
def _explained_input_errors() -> Iterator[None]:
    """Turns what session.run raises for bad records into one line that names the record and the reason."""
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        explanation = schema.explain_input_error(error)
        if explanation is None:
            raise
        raise explanation from None
