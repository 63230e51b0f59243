"""The Estimator's model_fn: connects input, train step, evaluation, restore and hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.checkpoints.restore import StartValues
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.distributed import agreement
from bert_pretrain.model import variables
from bert_pretrain.tensorflow_compat import estimator
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.forward import mean_loss
from bert_pretrain.train.hooks import ProfileHook, TrainingHook, TrainingRun
from bert_pretrain.train.job import Job
from bert_pretrain.train.start_values import find_start_values
from bert_pretrain.train.train_step import build_train_step


def make_model_fn(run: TrainingRun) -> Callable[..., estimator.EstimatorSpec]:
    """model_fn(features, mode) for training; features are a Batch's fields and input_wait_seconds."""
    job = run.job

    def build(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        global_step = tf.compat.v1.train.get_or_create_global_step()
        weights = variables.create_variables(job.model, job.config.run.seed)
        batch, waited = BatchTensors(*(features[name] for name in BatchTensors._fields)), features["input_wait_seconds"]
        train_op, values = build_train_step(job, weights, batch, waited, _stop_request(job), global_step)
        stored: Mapping[str, StartValues] = {}
        if job.world.is_root:
            stored, report = find_start_values(job, weights, run.previous.checkpoint, run.previous.weights)
            if report:
                run.logger.info(report)
        scaffold = restore.make_scaffold(stored, global_step)
        evaluation = Evaluation(job, weights, run.evaluation_input) if run.evaluation_input else None
        hooks = [TrainingHook(run, values, evaluation), *_profile_hooks(run)]
        # Estimator ends the run at a NaN loss; a skipped float16 update must not.
        loss = mean_loss(values.statistics, job.config.optim.next_sentence_weight)
        loss = tf.where(values.is_finite, loss, 0.0)
        return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=hooks, scaffold=scaffold)

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        assert mode == estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        return agreement.on_all_ranks(job.world, lambda: build(features, mode), names_rank=False)

    return model_fn


def _profile_hooks(run: TrainingRun) -> list[ProfileHook]:
    num_updates = run.job.config.device.profile_updates
    if not (num_updates and run.job.world.is_root):
        return []
    return [ProfileHook(run.job.config.run.output_dir, num_updates, run.throughput)]


def _stop_request(job: Job) -> tf.Tensor:
    """float32 scalar, 1.0 once this process was asked to stop, else 0.0; read again in every session.run."""
    value = tf.numpy_function(lambda: np.float32(job.world.stop.requested), [], tf.float32)
    value.set_shape([])
    return value
