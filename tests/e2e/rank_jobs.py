"""One rank of several that run a list of jobs one after the other, because starting ranks takes seconds.

mpirun -np N python -m tests.e2e.rank_jobs JOBS.json; rank 0 writes the answers to answers.json beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Dict
from unittest import mock

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.dynamic_masking import DynamicMasking
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.schema import BatchTensors, Limits
from bert_pretrain.data.shards.index_tables import Share
from bert_pretrain.distributed import connection
from bert_pretrain.distributed.stop import StopRequest
from bert_pretrain.distributed.world import World
from bert_pretrain.model import variables
from bert_pretrain.system import processes, streams
from bert_pretrain.train import evaluation, hooks, loop, train_step
from bert_pretrain.train.device import Device
from bert_pretrain.train.gradient_sum import make_gradient_sum
from bert_pretrain.train.job import Job
from tests import backends
from tests.e2e import runs

Values = Dict[str, object]


def gradient(ranks: World, values: Values) -> tuple[dict[str, np.ndarray], list[float]]:
    """The first update's gradient by variable and its statistics, from settings as runs.settings gives them."""
    config = runs.make_config(**values)
    model = ModelConfig.from_json(config.run.bert_config_file)
    limits = Limits(model.vocab_size, model.type_vocab_size)
    source = Source.open([config.data.input_files_dir], config.data, limits, Share(ranks.local_rank, ranks.local_size))
    seed, masking = config.data.data_seed, config.masking
    shares = TrainingInput(
        source,
        UpdateShape(
            config.examples_per_rank(), config.data.train_batch_size, config.data.pack_sequences, ranks.rank, ranks.size
        ),
        seed,
        masking=DynamicMasking.open(masking, seed, source) if masking.dynamic_masking else None,
    )
    with tf.Graph().as_default():
        weights = variables.create_variables(model, seed=1)
        features = shares()
        batch = BatchTensors(*(features[name] for name in BatchTensors._fields))
        job = Job(config, model, ranks, Device("cpu", False, 0, tf.float32, backends.best(), []))
        counts = make_gradient_sum(job).count(batch, tf.constant(0.0))
        zero = tf.constant(0, tf.int64)
        found = train_step.compute_gradient(job, weights, batch, counts, tf.constant(1.0), zero)
        with tf.compat.v1.Session() as session:
            session.run([tf.compat.v1.global_variables_initializer(), shares.initializer])
            values, statistics = session.run([found.values, found.statistics])
    return values, statistics.tolist()


def _gradient(ranks: World, job: Values) -> object:
    values, statistics = gradient(ranks, job["settings"])
    if ranks.is_root:
        np.savez(job["to"], **values)
    return statistics


def _run(ranks: World, job: Values) -> object:
    """A whole run; `of_rank_1` are settings that only rank 1 has. Returns the exit code or the error line.

    `stopped_at` is an update in whose evaluation rank 1 is asked to stop.
    """
    ranks.stop = StopRequest()
    values = {**job["settings"], **(job.get("of_rank_1", {}) if ranks.rank == 1 else {})}
    config = runs.make_config(**values, horovod=True)
    try:
        with _stopping(ranks, job["stopped_at"]) if "stopped_at" in job else contextlib.nullcontext():
            return loop.run_job(config, ranks)
    except (ValueError, SystemExit) as error:
        return str(error)


@contextlib.contextmanager
def _stopping(ranks: World, update: int) -> Iterator[None]:
    evaluate, batch_sums, now = hooks.TrainingHook._evaluate, evaluation.Evaluation._batch_sums, []

    def watched(self: hooks.TrainingHook, *arguments: Any) -> Any:
        now.append(self._step)
        return evaluate(self, *arguments)

    def sums(self: evaluation.Evaluation, session: tf.compat.v1.Session) -> Iterator[np.ndarray]:
        for number, values in enumerate(batch_sums(self, session)):
            if (ranks.rank, now[-1], number) == (1, update, 1):
                ranks.stop.requested = True
            yield values

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(hooks.TrainingHook, "_evaluate", watched))
        patches.enter_context(mock.patch.object(evaluation.Evaluation, "_batch_sums", sums))
        yield


def _remove(ranks: World, job: Values) -> object:
    if ranks.is_root:
        Path(job["path"]).unlink()
    return None


def _speak(ranks: World, job: Values) -> object:
    print(f"rank {ranks.rank} has something to say\nand more", file=sys.stderr, flush=True)
    return None


_DO = {"gradient": _gradient, "run": _run, "remove": _remove, "speak": _speak}


def main(path: Path) -> None:
    """Answers are [root's, rank 1's, ...] per job."""
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    evaluation._SECONDS_BETWEEN_EXCHANGES = 0.0  # ranks agree to go on after each batch
    answers = []
    with connection.connected(use_horovod=True, exchange=os.environ.get("TEST_EXCHANGE")) as ranks:
        for job in json.loads(path.read_text()):
            answers.append(ranks.allgather(_DO[job["do"]](ranks, job)))
        if ranks.is_root:
            path.with_name("answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    streams.prefix_rank(processes.launched_rank())
    main(Path(sys.argv[1]))
