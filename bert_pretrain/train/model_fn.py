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
from bert_pretrain.train import preflight, warm_start
from bert_pretrain.train.checkpoints import CheckpointSaver
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.forward import mean_loss
from bert_pretrain.train.hooks import TrainingHook
from bert_pretrain.train.job import Job
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput
from bert_pretrain.train.train_step import build_train_step


def make_model_fn(
    job: Job,
    training_input: TrainingInput,
    evaluation_input: Optional[EvaluationInput],
    init_checkpoint: Optional[str],
    logger: RunLogger,
    throughput: Throughput,
    outcome: Outcome,
) -> Callable[..., estimator.EstimatorSpec]:
    """model_fn(features, mode) for training; features are a Batch's fields and input_wait_seconds.

    init_checkpoint is None where a run in output_dir is continued, and on ranks that receive rank 0's variables.
    """

    def build(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        global_step = tf.compat.v1.train.get_or_create_global_step()
        weights = variables.create(job.model, job.config.run.seed)
        batch, waited = Batch(*(features[name] for name in Batch._fields)), features["input_wait_seconds"]
        train_op, values = build_train_step(job, weights, batch, waited, _stop_request(job), global_step)
        if init_checkpoint:
            logger.info(_warm_start(job, init_checkpoint, weights))
        evaluation = Evaluation(job, weights, evaluation_input) if evaluation_input else None
        saver = CheckpointSaver(job.config.run) if job.world.is_root else None
        hook = TrainingHook(job, values, training_input, evaluation, saver, logger, throughput, outcome)
        # Estimator ends the run at a NaN loss; a skipped float16 update must not.
        loss = tf.where(values.is_finite, mean_loss(values.statistics), 0.0)
        scaffold = tf.compat.v1.train.Scaffold(saver=saver.saver) if saver else None
        return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=[hook], scaffold=scaffold)

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        assert mode == estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        return preflight.on_all_ranks(job.world, lambda: build(features, mode), root_only=True)

    return model_fn


def _stop_request(job: Job) -> tf.Tensor:
    """float32 scalar, 1.0 once this process was asked to stop, else 0.0; read again in every session.run."""
    value = tf.numpy_function(lambda: np.float32(job.world.stop.requested), [], tf.float32)
    value.set_shape([])
    return value


def _warm_start(job: Job, prefix: str, weights: Mapping[str, tf.Variable]) -> str:
    """Loads the weights, and with --init_optimizer_state the optimizer's slots; returns the report."""
    slots = {}
    if job.config.run.init_optimizer_state:
        for variable in tf.compat.v1.global_variables():
            name = variable.op.name
            if name not in weights and name != "global_step" and not name.startswith("loss_scale"):
                slots[name] = variable
    return warm_start.load(prefix, weights, slots, job.config.run.allow_partial_init)
