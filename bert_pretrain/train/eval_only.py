"""Evaluation without training: --do_eval alone, or a run whose training is done but not its evaluation or results."""

from __future__ import annotations

import os
from typing import Any, Optional

import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.distributed import preflight
from bert_pretrain.distributed.stop import Interrupted
from bert_pretrain.model import variables
from bert_pretrain.run_files import results, run_json
from bert_pretrain.run_files.results import Evaluated, Outcome
from bert_pretrain.system.locks import TRAINING, DirectoryLock, HeldError
from bert_pretrain.train import device
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.job import Job, evaluation_input
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput


def is_evaluation_done(job: Job, previous: PreviousRun) -> bool:
    """True where --do_eval asks for nothing, or for what the run has measured after its last update."""
    if job.evaluation is None:
        return True
    return previous.is_evaluated and previous.latest.num_examples == evaluation_input(job).num_examples


def conclude(job: Job, previous: PreviousRun, logger: RunLogger) -> dict[str, Any]:
    """The content of results.json of a run that has nothing left to train; evaluates if that is still to be done.

    The rates that training left in results.json stay, if they belong to the last checkpoint.
    """
    run = job.config.run
    outcome = Outcome(step=previous.step, initial=previous.initial, latest=previous.latest)
    if not is_evaluation_done(job, previous):
        outcome.latest = latest = _evaluate(job, previous.checkpoint)
        logger.forget(lambda kind, update: (kind, update) == ("eval", previous.step))
        _report(job, logger, "eval", previous.step, latest, previous.checkpoint)
        if previous.latest_update != previous.step:
            logger.add_events("eval", previous.step, latest.metrics)
    if outcome.latest and (outcome.latest.metrics["masked_lm_accuracy"] or 0.0) >= run.stop_threshold > 0:
        outcome.end = results.TARGET_REACHED
    if previous.results and previous.results["updates"] == previous.step:
        return {**previous.results, **results.evaluation_fields(outcome.latest), **results.end_fields(outcome)}
    return _content(job, outcome, previous.step * job.examples_per_update)


def evaluate_alone(job: Job, previous: PreviousRun, logger: RunLogger) -> None:
    """Evaluates a checkpoint and prints the results; writes them unless a training job uses output_dir meanwhile."""
    prefix, step = preflight.from_root(job.world, lambda: _checkpoint_to_evaluate(job, previous))
    latest = _evaluate(job, prefix)
    is_of_run = bool(previous.description) and prefix == previous.checkpoint
    num_examples = step * run_json.examples_per_update(previous.description) if is_of_run else 0
    initial = previous.initial if is_of_run else None
    content = _content(job, Outcome(step=step, initial=initial, latest=latest), num_examples)
    lock = _lock_unless_training(job, logger)
    if lock:
        logger.forget(lambda kind, update: (kind, update) == ("eval_alone", step))
        content = _merged(job.config.run.output_dir, prefix, content, logger)
    _report(job, logger, "eval_alone" if lock else None, step, latest, prefix)
    if lock:
        lock.release()
    logger.info(results.results_row(content))


def _lock_unless_training(job: Job, logger: RunLogger) -> Optional[DirectoryLock]:
    """The lock on rank 0, for as long as it writes; None on other ranks and where a job trains in output_dir."""
    if not job.world.is_root:
        return None
    try:
        return DirectoryLock(job.config.run.output_dir, TRAINING, logger.info)
    except HeldError as error:
        logger.info(f"note: the results are printed but not written: {error}")
        return None


def _merged(output_dir: str, prefix: str, content: dict[str, Any], logger: RunLogger) -> dict[str, Any]:
    """Writes results.json: what training left there stays, except for an older evaluation of the same checkpoint."""
    trained = results.read_results(output_dir) if os.path.exists(os.path.join(output_dir, run_json.RUN_JSON)) else None
    if trained is None:
        logger.write_json(results.RESULTS_JSON, content)
    elif trained["updates"] == content["updates"] and os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(
        output_dir
    ):
        content = {**trained, **{name: content[name] for name in results.evaluation_fields(None)}}
        logger.write_json(results.RESULTS_JSON, content)
    else:
        logger.info(f"note: {results.RESULTS_JSON} stays that of the run, which is at update {trained['updates']}")
    return content


def _content(job: Job, outcome: Outcome, num_examples: int) -> dict[str, Any]:
    return results.results_content(outcome, Throughput().total(), job.world.size, job.device.name, num_examples, None)


def _report(job: Job, logger: RunLogger, kind: Optional[str], step: int, latest: Evaluated, prefix: str) -> None:
    if kind:
        values = {**latest.metrics, "eval_examples": latest.num_examples, "seconds": latest.seconds}
        logger.record(kind, step, step * job.examples_per_update, values)
    logger.info_values(f"evaluation of {prefix}, {latest.num_examples} examples:", latest.metrics)


def _checkpoint_to_evaluate(job: Job, previous: PreviousRun) -> tuple[str, int]:
    """Prefix and step of a checkpoint that holds the model. ValueError where there is none."""
    run = job.config.run
    prefix = run.eval_checkpoint_path or previous.checkpoint or previous.weights or run.init_checkpoint
    if prefix is None:
        raise ValueError(
            f"--do_eval: {run.output_dir} holds no checkpoint; give --eval_checkpoint_path or --init_checkpoint"
        )
    flag = "eval_checkpoint_path" if run.eval_checkpoint_path else "init_checkpoint"
    prefix = restore.resolve_prefix(prefix)
    restore.check_model(prefix, flag, variables.shapes(job.model))
    return prefix, restore.step_of(prefix)


def _evaluate(job: Job, prefix: str) -> Evaluated:
    """Loads the checkpoint on rank 0, broadcasts it, evaluates on all ranks. Interrupted if a signal ended that."""
    with tf.Graph().as_default():
        weights = variables.create(job.model, job.config.run.seed)
        evaluation = Evaluation(job, weights, evaluation_input(job))
        hooks = job.world.hooks()
        stored = (
            restore.load_init_checkpoint(prefix, weights, {}, allow_partial=False).stored if job.world.is_root else {}
        )
        for hook in hooks:
            hook.begin()
        session_config = device.session_config(job.config.device, job.device.gpu, job.world.local_size)
        with tf.compat.v1.Session(config=session_config) as session:
            restore.initialize_variables(session, stored)
            for hook in hooks:
                hook.after_create_session(session, None)
            evaluated = evaluation.run(session)
    if evaluated is None:
        raise Interrupted
    return evaluated
