"""The Estimator's model_fn: connects input, train step, evaluation, restore and hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.checkpoints.restore import CheckpointReader
from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.distributed import agreement
from bert_pretrain.model import variables
from bert_pretrain.run_files.results import Outcome
from bert_pretrain.tensorflow_compat import estimator
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.forward import mean_loss
from bert_pretrain.train.hooks import ProfileHook, TrainingHook
from bert_pretrain.train.job import Job
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
        batch, waited = BatchTensors(*(features[name] for name in BatchTensors._fields)), features["input_wait_seconds"]
        train_op, values = build_train_step(job, weights, batch, waited, _stop_request(job), global_step)
        stored = _stored_values(job, previous, weights, logger) if job.world.is_root else {}
        scaffold = restore.make_scaffold(stored, global_step)
        evaluation = Evaluation(job, weights, evaluation_input) if evaluation_input else None
        hook = TrainingHook(job, values, training_input, evaluation, writer, logger, throughput, outcome)
        hooks = [hook, *_profile_hooks(job, throughput)]
        # Estimator ends the run at a NaN loss; a skipped float16 update must not.
        loss = tf.where(values.is_finite, mean_loss(values.statistics), 0.0)
        return estimator.EstimatorSpec(mode, loss=loss, train_op=train_op, training_hooks=hooks, scaffold=scaffold)

    def model_fn(features: dict[str, tf.Tensor], mode: str) -> estimator.EstimatorSpec:
        assert mode == estimator.ModeKeys.TRAIN, "evaluation runs inside training; see train/evaluation.py"
        return agreement.on_all_ranks(job.world, lambda: build(features, mode), names_rank=False)

    return model_fn


def _profile_hooks(job: Job, throughput: Throughput) -> list[ProfileHook]:
    num_updates = job.config.device.profile_updates
    if not (num_updates and job.world.is_root):
        return []
    return [ProfileHook(job.config.run.output_dir, num_updates, throughput)]


def _stop_request(job: Job) -> tf.Tensor:
    """float32 scalar, 1.0 once this process was asked to stop, else 0.0; read again in every session.run."""
    value = tf.numpy_function(lambda: np.float32(job.world.stop.requested), [], tf.float32)
    value.set_shape([])
    return value


def _stored_values(
    job: Job, previous: PreviousRun, weights: Mapping[str, tf.Variable], logger: RunLogger
) -> dict[str, CheckpointReader]:
    """On root: variables that start from a checkpoint, by name. The other ranks receive root's variables.

    All of them continue a previous run; with --init_checkpoint it is the weights, and with --init_optimizer_state the
    optimizer's slots.
    """
    variables = {one.op.name: one for one in tf.compat.v1.global_variables()}
    if previous.checkpoint is not None:
        # Estimator itself would restore what the file `checkpoint` names, even where that checkpoint is damaged.
        restore.check_state(previous.checkpoint, variables)
        return dict.fromkeys(variables, restore.open_reader(previous.checkpoint, "output_dir"))
    prefix = previous.weights or job.config.run.init_checkpoint
    if not prefix:
        return {}
    slots = {}
    if job.config.run.init_optimizer_state:
        own = (*weights, "global_step")
        slots = {n: one for n, one in variables.items() if n not in own and not n.startswith("loss_scale")}
    loaded = restore.load_init_checkpoint(prefix, weights, slots, job.config.run.allow_partial_init)
    logger.info(loaded.report)
    return loaded.stored
