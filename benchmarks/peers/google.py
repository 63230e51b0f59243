"""Google's run_pretraining.py as published, on TensorFlow 2: `python -m benchmarks.peers.google SETTINGS.json`.

Its model_fn, input_fn, create_optimizer, network and heads run unchanged. Not Google's: the stand-ins of
tests/references/google_modeling.py, LAMB and accumulation (google_optimizers.py), and a bare session in place of
TPUEstimator, whose hooks would only cost time.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks.peers import google_optimizers
from benchmarks.settings import Settings
from benchmarks.worker import Step, serve, timed
from tests.references.google_modeling import ModeKeys, google_code

_CONSTANT_RATE_STEPS = 10**9  # create_optimizer always decays; over so many steps it does not show


class _Job(NamedTuple):
    """A graph with a session, and what Google's model_fn put into it."""

    session: tf.Session
    spec: Any  # TPUEstimatorSpec
    add_micro_batch: list[tf.Operation]


class GoogleTraining:
    """Google's training steps."""

    def __init__(self, settings: Settings) -> None:
        self.versions = {"tensorflow": tf.__version__, "bert-tensorflow": "1.0.4"}
        self._settings = settings
        with np.load(settings.weights) as stored:
            weights = dict(stored)
        evaluation = _job(settings, ModeKeys.EVAL, weights)
        self._first_loss = float(evaluation.session.run(evaluation.spec.loss))
        evaluation.session.close()
        self._training = _job(settings, ModeKeys.TRAIN, weights)

    def first_loss(self) -> float:
        return self._first_loss

    def begin_turn(self) -> None:
        """Nothing to prepare."""

    def matmul_flops(self) -> None:
        """Ours measures it."""

    def step(self) -> Step:
        return timed(self._update, self._settings)

    def _update(self) -> float:
        session, spec, add_micro_batch = self._training
        operations = add_micro_batch * (self._settings.num_accumulation_steps - 1) + [spec.train_op]
        return float(np.mean([session.run([spec.loss, operation])[0] for operation in operations]))


def _job(settings: Settings, mode: str, weights: Mapping[str, np.ndarray]) -> _Job:
    code = google_code()
    is_training = mode == ModeKeys.TRAIN
    model_fn = code.run_pretraining.model_fn_builder(
        bert_config=code.modeling.BertConfig.from_json_file(settings.model_config),
        init_checkpoint=None,
        learning_rate=settings.learning_rate,
        num_train_steps=_CONSTANT_RATE_STEPS,
        num_warmup_steps=0,
        use_tpu=False,
        use_one_hot_embeddings=False,
    )
    input_fn = code.run_pretraining.input_fn_builder(
        list(settings.shards), settings.seq_length, settings.max_predictions, is_training=is_training
    )
    optimizer = code.optimization.AdamWeightDecayOptimizer
    apply_gradients = google_optimizers.lamb if settings.optimizer == "lamb" else optimizer.apply_gradients
    if settings.num_accumulation_steps > 1:
        apply_gradients = google_optimizers.accumulating(apply_gradients, settings.num_accumulation_steps)
    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`tf.layers.dense` is deprecated")
        tf.set_random_seed(settings.seed)
        features = tf.data.make_one_shot_iterator(input_fn({"batch_size": settings.batch_size})).get_next()
        with mock.patch.object(optimizer, "apply_gradients", apply_gradients):
            spec = model_fn(features, None, mode, {})
        config = tf.ConfigProto(
            intra_op_parallelism_threads=settings.num_threads, inter_op_parallelism_threads=settings.num_threads
        )
        session = tf.Session(config=config)
        starts = {v.initializer.inputs[1]: weights[v.op.name] for v in tf.trainable_variables()}
        session.run(tf.global_variables_initializer(), starts)
        return _Job(session, spec, tf.get_collection(google_optimizers.ADD_MICRO_BATCH))


if __name__ == "__main__":
    serve(GoogleTraining)
