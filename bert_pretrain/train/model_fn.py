"""The Estimator's model_fn: assembly only."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.model import variables
from bert_pretrain.model.dropout import Dropout
from bert_pretrain.model.layers import Weights
from bert_pretrain.optim import schedule, train_op
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.train import network, warm_start
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.hooks import Saver, Surroundings, TrainingHook, Watched
from bert_pretrain.train.network import Statistics
from bert_pretrain.train.stop import StopRequest
from bert_pretrain.world import World


class Job(NamedTuple):
    """Everything that a training session is made from."""

    config: Config
    model: ModelConfig
    world: World
    compute_dtype: tf.DType
    training_input: TrainingInput
    evaluation_input: Optional[EvaluationInput]
    init_checkpoint: Optional[str]  # None too when a run in output_dir is continued
    stop: StopRequest
    surroundings: Surroundings


def make_model_fn(job: Job) -> Callable[..., tf.estimator.EstimatorSpec]:
    """model_fn(features, mode) for training; features are a Batch's fields and input_wait_seconds."""

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> tf.estimator.EstimatorSpec:
        assert mode == tf.estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        step = tf.compat.v1.train.get_or_create_global_step()
        weights = variables.create(job.model, job.config.run.seed)
        rule = train_op.optimizer(job.config.optim, weights)
        loss_scale = LossScale(job.config.optim.init_loss_scale, dynamic=job.compute_dtype == tf.float16)
        if job.init_checkpoint:
            _warm_start(job, weights)
        update, watched = _build_update(job, features, weights, rule, loss_scale, step)
        evaluation = None
        if job.evaluation_input:
            evaluation = Evaluation(weights, job.evaluation_input, job.model, job.compute_dtype, job.world)
        saver = Saver(job.config.run) if job.world.is_root else None
        hook = TrainingHook(
            job.config,
            watched,
            list(weights),
            evaluation,
            saver,
            lambda session: _compute_without_effect(session, watched, job.training_input),
            job.surroundings,
        )
        return tf.estimator.EstimatorSpec(
            mode,
            # Estimator stops at a NaN loss by itself; a skipped float16 update is no reason to.
            loss=tf.where(watched.finite, pretraining_loss(watched.statistics), 0.0),
            train_op=update,
            training_hooks=[hook],
            scaffold=tf.compat.v1.train.Scaffold(saver=saver.saver) if saver else None,
        )

    return model_fn


def pretraining_loss(statistics: tf.Tensor) -> tf.Tensor:
    """[9] Statistics -> mean masked-LM loss plus mean next-sentence loss, nats (facts 3.5)."""
    sums = Statistics(*tf.unstack(statistics))
    return tf.math.divide_no_nan(sums.masked_lm_loss, sums.masked_lm_count) + tf.math.divide_no_nan(
        sums.next_sentence_loss, sums.next_sentence_count
    )


def _build_update(
    job: Job,
    features: dict[str, tf.Tensor],
    weights: Mapping[str, tf.Variable],
    rule: train_op.Optimizer,
    loss_scale: LossScale,
    step: tf.Variable,
) -> tuple[tf.Operation, Watched]:
    """The operation that makes one update, and what it shows to the hook."""
    batch = Batch(*(features[name] for name in Batch._fields))
    step_before = step.read_value()
    position = step_before + loss_scale.skipped_updates.read_value()
    # The two tasks have different denominators, so both must be known before a gradient can be weighted; the same
    # small exchange carries the ranks' wish to stop, so that all stop after the same update.
    counts = [tf.reduce_sum(batch.masked_weights), tf.size(batch.next_sentence_labels, tf.float32), job.stop.tensor()]
    (counts,) = job.world.sum([tf.stack(counts)])
    masked_lm_count, next_sentence_count, stop_requested = tf.unstack(counts)

    def micro_batch(k: tf.Tensor, local: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        dropout = Dropout(job.config.run.seed, job.world.rank, position, k)
        sums = network.statistics(local, network.micro_batch(batch, k), job.model, dropout, job.compute_dtype)
        loss = (
            tf.math.divide_no_nan(sums.masked_lm_loss, masked_lm_count) + sums.next_sentence_loss / next_sentence_count
        )
        return loss, tf.stack(sums)

    scale = loss_scale.value.read_value()
    gradient = train_op.gradient(
        micro_batch,
        tf.size(batch.row_splits) - 1,
        len(Statistics._fields),
        weights,
        scale,
        functools.partial(job.world.sum, half=job.config.optim.allreduce_fp16),
    )
    rate = schedule.learning_rate(
        step_before,
        job.config.optim,
        schedule.effective_peak(job.config.optim, job.world.size, job.config.run.horovod),
    )
    update = train_op.apply(gradient, rule, rate, loss_scale, job.config.optim.clip_norm, step)
    with tf.control_dependencies([update]):
        step_after = step.read_value()
    return update, Watched(
        step=step_after,
        position=position,
        statistics=gradient.statistics,
        learning_rate=rate,
        gradient_norm=gradient.norm,
        square_norms=gradient.square_norms,
        finite=gradient.finite,
        loss_scale=scale,
        stop_requested=stop_requested,
        input_wait_seconds=features["input_wait_seconds"],
    )


def _warm_start(job: Job, weights: Mapping[str, tf.Variable]) -> None:
    """Loads --init_checkpoint and reports what came of it."""
    slots = {}
    if job.config.run.init_optimizer_state:
        own = {"global_step", *weights}
        slots = {
            name: variable
            for variable in tf.compat.v1.global_variables()
            if (name := variable.op.name) not in own and not name.startswith("loss_scale")
        }
    report = warm_start.apply(job.init_checkpoint, weights, slots, job.config.run.allow_partial_init)
    job.surroundings.journal.say(report)


def _compute_without_effect(session: tf.compat.v1.Session, watched: Watched, source: TrainingInput) -> None:
    """Runs everything of an update but its assignments, then rewinds the input to where it stood."""
    session.run(watched.gradient_norm)
    session.run(source.initializer)
