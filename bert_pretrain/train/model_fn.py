"""The Estimator's model_fn: connects input, train step, evaluation, restore and hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain import estimator
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, preflight, warm_start
from bert_pretrain.train.checkpoint_writer import CheckpointWriter
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.forward import mean_loss
from bert_pretrain.train.hooks import TrainingHook
from bert_pretrain.train.job import Job
from bert_pretrain.train.profile_hook import ProfileHook
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.resume import PreviousRun
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput
from bert_pretrain.train.train_step import build_train_step


def make_model_fn(
    job: Job,
    training_input: TrainingInput,
    evaluation_input: Optional[EvaluationInput],
    previous: PreviousRun,
    writer: Optional[CheckpointWriter],
    logger: RunLogger,
    throughput: Throughput,
    outcome: Outcome,
) -> Callable[..., estimator.EstimatorSpec]:
    """model_fn(features, mode) for training; features are a Batch's fields and input_wait_seconds.

    writer is None on ranks that write nothing.
    """

    def build(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        global_step = tf.compat.v1.train.get_or_create_global_step()
        weights = variables.create(job.model, job.config.run.seed)
        batch, waited = Batch(*(features[name] for name in Batch._fields)), features["input_wait_seconds"]
        train_op, values = build_train_step(job, weights, batch, waited, _stop_request(job), global_step)
        scaffold = _start_values(job, previous, weights, logger) if job.world.is_root else None
        evaluation = Evaluation(job, weights, evaluation_input) if evaluation_input else None
        hook = TrainingHook(job, values, training_input, evaluation, writer, logger, throughput, outcome)
        hooks = [hook, *_profile_hooks(job, throughput, logger)]
        # Estimator ends the run at a NaN loss; a skipped float16 update must not.
        loss = tf.where(values.is_finite, mean_loss(values.statistics), 0.0)
        return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=hooks, scaffold=scaffold)

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        assert mode == estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        return preflight.on_all_ranks(job.world, lambda: build(features, mode), root_only=True)

    return model_fn


def _profile_hooks(job: Job, throughput: Throughput, logger: RunLogger) -> list[ProfileHook]:
    num_updates = job.config.device.profile_updates
    if not (num_updates and job.world.is_root):
        return []
    return [ProfileHook(job.config.run.output_dir, num_updates, throughput, logger.info)]


def _stop_request(job: Job) -> tf.Tensor:
    """float32 scalar, 1.0 once this process was asked to stop, else 0.0; read again in every session.run."""
    value = tf.numpy_function(lambda: np.float32(job.world.stop.requested), [], tf.float32)
    value.set_shape([])
    return value


def _start_values(
    job: Job, previous: PreviousRun, weights: Mapping[str, tf.Variable], logger: RunLogger
) -> Optional[tf.compat.v1.train.Scaffold]:
    """On root: makes the variables start from a checkpoint. The other ranks receive root's variables.

    The Scaffold that restores the state of a previous run; None where the variables' own initializers give the values.
    """
    if previous.checkpoint is None:
        prefix = previous.weights or job.config.run.init_checkpoint
        if prefix:
            logger.info(_warm_start(job, prefix, weights))
        return None
    checkpoints.check_state(previous.checkpoint, (one.op.name for one in tf.compat.v1.global_variables()))
    # Estimator itself would restore what the file `checkpoint` names, even where that checkpoint is damaged.
    saver = tf.compat.v1.train.Saver()
    restore = tf.compat.v1.get_default_graph().get_operation_by_name(saver.saver_def.restore_op_name)
    feeds = {saver.saver_def.filename_tensor_name: previous.checkpoint}
    return tf.compat.v1.train.Scaffold(saver=saver, init_op=restore, init_feed_dict=feeds)


def _warm_start(job: Job, prefix: str, weights: Mapping[str, tf.Variable]) -> str:
    """Loads the weights, and with --init_optimizer_state the optimizer's slots; returns the report."""
    slots = {}
    if job.config.run.init_optimizer_state:
        for variable in tf.compat.v1.global_variables():
            name = variable.op.name
            if name not in weights and name != "global_step" and not name.startswith("loss_scale"):
                slots[name] = variable
    return warm_start.load(prefix, weights, slots, job.config.run.allow_partial_init)
