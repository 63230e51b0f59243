"""Evaluation without training: --do_eval alone, or a run killed between its last checkpoint and its results."""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from bert_pretrain.model import variables
from bert_pretrain.stop import Interrupted
from bert_pretrain.train import checkpoints, device, preflight, results
from bert_pretrain.train.evaluation import Evaluated, Evaluation
from bert_pretrain.train.job import Job, evaluation_input
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.resume import PreviousRun
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput


def evaluate_only(job: Job, previous: PreviousRun, logger: RunLogger) -> dict[str, Any]:
    """Evaluates if --do_eval asks for it. Returns the content of results.json.

    The rates that training left in results.json stay, if they belong to the evaluated checkpoint.
    """
    run, outcome = job.config.run, Outcome(step=previous.step)
    is_same = previous.results is not None and previous.results["updates"] == previous.step
    if job.evaluation:
        prefix, outcome.step = preflight.from_root(job.world, lambda: _checkpoint_to_evaluate(job, previous))
        outcome.latest = latest = _evaluate(job, prefix)
        if latest is None:
            raise Interrupted
        logger.record("eval", outcome.step, outcome.step * job.examples_per_update, latest.metrics)
        logger.info_values(f"evaluation of {prefix}, {latest.num_examples} examples:", latest.metrics)
        is_same = is_same and prefix == previous.checkpoint
        if run.do_train and (latest.metrics["masked_lm_accuracy"] or 0.0) >= run.stop_threshold > 0:
            outcome.end = results.TARGET_REACHED
    if is_same:
        end = results.end_fields(outcome) if run.do_train else {}
        return {**previous.results, **(results.evaluation_fields(outcome.latest) if job.evaluation else {}), **end}
    num_examples = outcome.step * job.examples_per_update if run.do_train else 0
    return results.content(outcome, Throughput().total(), job.world.size, job.device.name, num_examples, None)


def _checkpoint_to_evaluate(job: Job, previous: PreviousRun) -> tuple[str, int]:
    """Prefix and step of a checkpoint that holds the model. ValueError where there is none."""
    run = job.config.run
    prefix = run.eval_checkpoint_path or previous.checkpoint or run.init_checkpoint
    if prefix is None:
        raise ValueError(
            f"--do_eval: {run.output_dir} holds no checkpoint; give --eval_checkpoint_path or --init_checkpoint"
        )
    flag = "eval_checkpoint_path" if run.eval_checkpoint_path else "init_checkpoint"
    checkpoints.check_model(prefix, flag, variables.shapes(job.model))
    return prefix, checkpoints.step_of(prefix)


def _evaluate(job: Job, prefix: str) -> Optional[Evaluated]:
    """Loads the checkpoint on rank 0, broadcasts it, evaluates on all ranks; None if a signal ended the evaluation."""
    with tf.Graph().as_default():
        weights = variables.create(job.model, job.config.run.seed)
        evaluation = Evaluation(job, weights, evaluation_input(job))
        saver, hooks = tf.compat.v1.train.Saver(weights), job.world.hooks()
        for hook in hooks:
            hook.begin()
        session_config = device.session_config(job.config.device, job.device.gpu, job.world.local_size)
        with tf.compat.v1.Session(config=session_config) as session:
            if job.world.is_root:
                saver.restore(session, prefix)
            else:
                session.run(tf.compat.v1.global_variables_initializer())
            for hook in hooks:
                hook.after_create_session(session, None)
            return evaluation.run(session)
