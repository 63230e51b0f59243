"""tf.estimator's Estimator, EstimatorSpec, RunConfig and ModeKeys, for every TensorFlow.

TensorFlow 2.16 removed tf.estimator. There, the classes of this file take its place: the part that training needs,
with the same names and meaning, over tf.compat.v1.train.MonitoredTrainingSession. Callers import this module and do
not know which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.tensorflow_compat.typed import ConfigProto, Scaffold, SessionRunHook


class GraphModeKeys:
    """The modes of a model_fn."""

    TRAIN, EVAL, PREDICT = "train", "eval", "infer"


class GraphEstimatorSpec(NamedTuple):
    """What a model_fn returns."""

    mode: str
    loss: tf.Tensor
    train_op: tf.Operation
    training_hooks: Sequence[SessionRunHook] = ()
    scaffold: Optional[Scaffold] = None


class GraphRunConfig(NamedTuple):
    """How an estimator runs. Without tf_random_seed the graph has no seed, as in tf.estimator."""

    session_config: Optional[ConfigProto] = None
    tf_random_seed: Optional[int] = None
    save_checkpoints_steps: Optional[int] = None
    save_checkpoints_secs: Optional[int] = None
    save_summary_steps: Optional[int] = None
    log_step_count_steps: Optional[int] = None


class GraphEstimator:
    """Trains the graph of a model_fn; restores the newest checkpoint of model_dir first."""

    def __init__(
        self, model_fn: Callable[..., GraphEstimatorSpec], model_dir: str, config: Optional[GraphRunConfig] = None
    ) -> None:
        self._model_fn, self._model_dir, self._config = model_fn, model_dir, config or GraphRunConfig()

    def train(
        self,
        input_fn: Callable[[], Mapping[str, tf.Tensor]],
        hooks: Sequence[SessionRunHook] = (),
        max_steps: Optional[int] = None,
    ) -> GraphEstimator:
        """Runs train_op until global_step is max_steps or a hook requests a stop.

        input_fn() gives the features. A NaN loss raises tf.compat.v1.train.NanLossDuringTrainingError.
        """
        with tf.Graph().as_default():
            tf.compat.v1.set_random_seed(self._config.tf_random_seed)
            tf.compat.v1.train.get_or_create_global_step()
            spec = self._model_fn(features=input_fn(), mode=GraphModeKeys.TRAIN)
            all_hooks = [*hooks, *_own_hooks(spec.loss, max_steps), *spec.training_hooks]
            with tf.compat.v1.train.MonitoredTrainingSession(
                checkpoint_dir=self._model_dir,
                scaffold=spec.scaffold,
                hooks=all_hooks,
                config=self._config.session_config,
                save_checkpoint_steps=self._config.save_checkpoints_steps,
                save_checkpoint_secs=self._config.save_checkpoints_secs,
                save_summaries_steps=self._config.save_summary_steps,
                save_summaries_secs=None,
                log_step_count_steps=self._config.log_step_count_steps,
            ) as session:
                while not session.should_stop():
                    session.run([spec.train_op, spec.loss])
        return self


def _own_hooks(loss: tf.Tensor, max_steps: Optional[int]) -> list[SessionRunHook]:
    stop = [tf.compat.v1.train.StopAtStepHook(last_step=max_steps)] if max_steps else []
    return [*stop, tf.compat.v1.train.NanTensorHook(loss)]


_tensorflows = compat.tf_estimator()
if TYPE_CHECKING or _tensorflows is None:
    ModeKeys = GraphModeKeys
    EstimatorSpec = GraphEstimatorSpec
    RunConfig = GraphRunConfig
    Estimator = GraphEstimator
else:
    ModeKeys = _tensorflows.ModeKeys
    EstimatorSpec = _tensorflows.EstimatorSpec
    RunConfig = _tensorflows.RunConfig
    Estimator = _tensorflows.Estimator
