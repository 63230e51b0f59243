"""The Estimator's model_fn: assembly only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.model import variables
from bert_pretrain.train import train_step, warm_start
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.hooks import Saver, Surroundings, TrainingHook
from bert_pretrain.train.job import Job
from bert_pretrain.train.stop import StopRequest
from bert_pretrain.train.train_step import Watched


class Parts(NamedTuple):
    """What the graph is connected to."""

    training_input: TrainingInput
    evaluation_input: Optional[EvaluationInput]
    init_checkpoint: Optional[str]  # None too when a run in output_dir is continued
    stop: StopRequest
    surroundings: Surroundings


def make_model_fn(job: Job, parts: Parts) -> Callable[..., tf.estimator.EstimatorSpec]:
    """model_fn(features, mode) for training; features are a Batch's fields and input_wait_seconds."""

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> tf.estimator.EstimatorSpec:
        assert mode == tf.estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        step = tf.compat.v1.train.get_or_create_global_step()
        weights = variables.create(job.model, job.config.run.seed)
        batch = Batch(*(features[name] for name in Batch._fields))
        operation, watched = train_step.build(
            job, batch, features["input_wait_seconds"], parts.stop.tensor(), weights, step
        )
        if parts.init_checkpoint:
            parts.surroundings.journal.say(_warm_start(job, parts.init_checkpoint, weights))
        evaluation = Evaluation(weights, parts.evaluation_input, job) if parts.evaluation_input else None
        saver = Saver(job.config.run) if job.world.is_root else None
        hook = TrainingHook(
            job,
            watched,
            list(weights),
            evaluation,
            saver,
            lambda session: _compute_without_effect(session, watched, parts.training_input),
            parts.surroundings,
        )
        return tf.estimator.EstimatorSpec(
            mode,
            # Estimator stops at a NaN loss by itself; a skipped float16 update is no reason to.
            loss=tf.where(watched.finite, train_step.loss(watched.statistics), 0.0),
            train_op=operation,
            training_hooks=[hook],
            scaffold=tf.compat.v1.train.Scaffold(saver=saver.saver) if saver else None,
        )

    return model_fn


def _warm_start(job: Job, prefix: str, weights: Mapping[str, tf.Variable]) -> str:
    """Loads the weights, and the optimizer's slots if asked to; returns the report."""
    slots = {}
    if job.config.run.init_optimizer_state:
        for variable in tf.compat.v1.global_variables():
            name = variable.op.name
            if name not in weights and name != "global_step" and not name.startswith("loss_scale"):
                slots[name] = variable
    return warm_start.apply(prefix, weights, slots, job.config.run.allow_partial_init)


def _compute_without_effect(session: tf.compat.v1.Session, watched: Watched, source: TrainingInput) -> None:
    """Runs everything of an update but its assignments, then rewinds the input to where it stood."""
    session.run(watched.gradient_norm)
    session.run(source.initializer)
