"""Results where nothing is left to train: --do_eval alone, or a run killed between last checkpoint and results."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bert_pretrain.config.training import RunConfig
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, device, preflight
from bert_pretrain.train import results as outcomes
from bert_pretrain.train.evaluation import Evaluated, Evaluation
from bert_pretrain.train.job import Job
from bert_pretrain.train.prepare import Prepared, evaluation_input
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.resume import Past
from bert_pretrain.train.run_logger import Journal
from bert_pretrain.train.throughput import Clock


def conclude(prepared: Prepared, past: Past, job: Job, journal: Journal) -> dict[str, Any]:
    """Evaluates if asked to; gives the results, with what training left there if it was its checkpoint."""
    run, outcome = job.config.run, Outcome(step=past.step)
    if prepared.evaluation:
        prefix, outcome.step = preflight.of_root(job.world, lambda: _to_evaluate(run, past, job))
        outcome.latest = latest = _evaluate(prepared, prefix, job)
        journal.record("eval", outcome.step, outcome.step * job.batch_examples, latest.metrics)
        journal.line(f"evaluation of {prefix}, {latest.num_examples} examples:", latest.metrics)
        if past.results and prefix == past.checkpoint and past.results["updates"] == outcome.step:
            return {**past.results, **outcomes.evaluated(latest)}
        if run.do_train and (latest.metrics["masked_lm_accuracy"] or 0.0) >= run.stop_threshold > 0:
            outcome.end = outcomes.TARGET_REACHED
    examples = outcome.step * job.batch_examples if run.do_train else 0
    return outcomes.results(outcome, Clock().total(), job.world.size, prepared.device.name, examples, None)


def _to_evaluate(run: RunConfig, past: Past, job: Job) -> tuple[str, int]:
    """Prefix and step of the checkpoint, which is known to hold the model. ValueError where there is none."""
    prefix = run.eval_checkpoint_path or past.checkpoint or run.init_checkpoint
    if prefix is None:
        raise ValueError(
            f"--do_eval: {run.output_dir} holds no checkpoint; give --eval_checkpoint_path or --init_checkpoint"
        )
    flag = "eval_checkpoint_path" if run.eval_checkpoint_path else "init_checkpoint"
    checkpoints.check_model(prefix, flag, variables.shapes(job.model))
    return prefix, checkpoints.step_of(prefix)


def _evaluate(prepared: Prepared, prefix: str, job: Job) -> Evaluated:
    with tf.Graph().as_default():
        weights = variables.create(job.model, job.config.run.seed)
        evaluation = Evaluation(weights, evaluation_input(prepared, job.world), job)
        saver, hooks = tf.compat.v1.train.Saver(weights), job.world.hooks()
        for hook in hooks:
            hook.begin()
        session_config = device.session_config(job.config.device, prepared.device.card, job.world.local_size)
        with tf.compat.v1.Session(config=session_config) as session:
            if job.world.is_root:
                saver.restore(session, prefix)
            else:
                session.run(tf.compat.v1.global_variables_initializer())
            for hook in hooks:
                hook.after_create_session(session, None)
            return evaluation.run(session)
