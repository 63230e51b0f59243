"""This project's evaluation as a worker: `python -m benchmarks.ours_evaluation SETTINGS.json`.

Workers:
- ours: `bert_pretrain.train.evaluation.Evaluation`, which training and `--do_eval` run, with the session of
  `bert_pretrain.run`;
- training_forward: the forward pass of training over the same examples, dropout on, without a gradient.
"""

from __future__ import annotations

import abc
import dataclasses
import time

import numpy as np
import tensorflow as tf

from benchmarks.ours import batch_of, open_source, start_session
from benchmarks.settings import Settings
from benchmarks.worker import Evaluated, answer_of_evaluation, serve
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.data.input_fn import TrainingInput
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import variables
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import device, forward, throughput
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job, evaluation_input, training_input


class _Ours(abc.ABC):
    """What both workers need: the job, the variables and a session."""

    def __init__(self, settings: Settings) -> None:
        self.versions = {"tensorflow": tf.__version__}
        model = ModelConfig.from_json(settings.model_config)
        config = _config(settings)
        chosen = device.choose_device(config.device, set(), width=model.hidden_size)
        source = open_source(settings.shards, settings.seq_length, settings.max_predictions, model)
        self._job = Job(config, model, World(), chosen, training=source, evaluation=source)
        self._session_config = device.session_config(config.device, 0)
        with tf.Graph().as_default():
            weights = variables.create_variables(model, settings.seed)
            self._build(weights)
            with np.load(settings.weights) as start:
                self._session = start_session(self._session_config, weights, start)

    def matmul_flops(self) -> float:
        return throughput.matmul_rate(self._session_config)

    @abc.abstractmethod
    def _build(self, weights: dict[str, tf.Variable]) -> None:
        """Adds the worker's operations to the default graph."""


class OurEvaluation(_Ours):
    """Evaluation as it runs in training and by itself."""

    def _build(self, weights: dict[str, tf.Variable]) -> None:
        job, config = self._job, self._job.config
        one_batch = dataclasses.replace(config, data=dataclasses.replace(config.data, max_eval_steps=1))
        self._all, self._first = (
            Evaluation(each, weights, evaluation_input(each)) for each in (job, job._replace(config=one_batch))
        )

    def warm_up(self) -> None:
        self._first.run(self._session)

    def evaluate(self) -> Evaluated:
        done = self._all.run(self._session)
        return Evaluated(done.seconds, done.num_examples, done.metrics)


class TrainingForward(_Ours):
    """Forward passes of training's micro-batches, as many as an epoch has."""

    def _build(self, weights: dict[str, tf.Variable]) -> None:
        job, zero = self._job, tf.constant(0)
        self._examples: TrainingInput = training_input(job, first_update=0)
        batch = forward.micro_batch(batch_of(self._examples()), zero)
        backend = job.device.backend
        dropout = Dropout(job.config.run.seed, 0, zero, zero, hashed=backend is not Backend.PLAIN)
        kernels = make_kernels(backend)
        sums = forward.forward_pass(weights, batch, job.model, kernels, dropout, job.device.precision).statistics
        self._sums = tf.stack(sums)

    def warm_up(self) -> None:
        self._session.run(self._examples.initializer)
        self._session.run(self._sums)

    def evaluate(self) -> Evaluated:
        self._session.run(self._examples.initializer)
        batch_size, num_records = self._job.config.data.train_batch_size, self._job.training.index.num_records
        begin = time.perf_counter()
        sums = np.zeros(len(Statistics._fields))
        for _ in range(num_records // batch_size):
            sums += self._session.run(self._sums)
        seconds = time.perf_counter() - begin
        totals = Statistics(*sums)
        return Evaluated(seconds, round(totals.examples), forward.summarize(totals))


def _config(settings: Settings) -> Config:
    size = settings.batch_size
    return Config(
        RunConfig(do_train=True, do_eval=True, seed=settings.seed),
        DataConfig(train_batch_size=size, eval_batch_size=size, max_eval_steps=0),
        OptimConfig(),
        DeviceConfig(intra_op_threads=settings.num_threads),
    )


_WORKERS = {"ours": OurEvaluation, "training_forward": TrainingForward}

if __name__ == "__main__":
    serve(lambda settings: _WORKERS[settings.worker](settings), answer_of_evaluation)
