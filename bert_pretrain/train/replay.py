"""An update that was refused because its gradient is not finite: described in a file, and computed again from it.

`--replay_update` reports what is not finite in the update, and which record is at fault.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.config.option import options_of
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.data import schema
from bert_pretrain.data.input_fn import TrainingInput
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import Batch, BatchTensors, Examples
from bert_pretrain.distributed.world import World
from bert_pretrain.model import variables
from bert_pretrain.system.console import log
from bert_pretrain.system.files import open_regular, write_json
from bert_pretrain.tensorflow_compat.typed import Session
from bert_pretrain.train import device, train_step
from bert_pretrain.train.forward import Statistics, loss_of
from bert_pretrain.train.gradient_sum import Counts
from bert_pretrain.train.job import Job, open_on_all_ranks, training_input
from bert_pretrain.train.start_values import find_start_values

REPLAY_FLAG = "replay_update"
_SHOWN_RECORDS = 6  # records in the message; the file holds all
# Of the values that are read from a file.
_TYPES = {
    "update": int,
    "position": int,
    "loss_scale": float,
    "checkpoint": (str, type(None)),
    "ranks": int,
    "settings": dict,
    "records": list,
}


class RefusedUpdate(NamedTuple):
    """An update that was not applied because its gradient is not finite."""

    update: int  # counted from 1
    position: int  # updates read from the data before this one
    loss_scale: float
    first_bad_variable: str
    checkpoint: Optional[str]  # its name, beside the file; None before the first update: the initial weights
    ranks: int
    settings: dict[str, Any]  # flags that the update depends on
    data: str  # fingerprint of the training data
    records: list[list[str]]  # 'path:number' of each rank's records


def settings_of_update(config: Config) -> dict[str, Any]:
    """The flags that decide which records, masks, rows and dropout masks an update has."""
    settings = {name: value for part in config.settings().values() for name, value in part.items()}
    names = [field.name for field, facts in options_of(*PARTS.values()) if facts.of_update]
    return {name: settings[name] for name in names}


def write_refused_update(output_dir: str, refused: RefusedUpdate) -> str:
    """Writes refused_update-N.json and returns its path."""
    path = os.path.join(output_dir, f"refused_update-{refused.update}.json")
    write_json(path, refused._asdict())
    return path


def refuse_update(output_dir: str, refused: RefusedUpdate, loss: float, bad_weight: Optional[str]) -> str:
    """Writes the file. Returns the message that ends the run."""
    path = write_refused_update(output_dir, refused)
    records = [record for of_rank in refused.records for record in of_rank]
    more = f" and {len(records) - _SHOWN_RECORDS} more" if len(records) > _SHOWN_RECORDS else ""
    weights = f"Weights are those of update {refused.update - 1}"
    if bad_weight:
        weights = (
            f"The weights are not finite either, first {bad_weight}, and were not saved; the last checkpoint stays"
        )
    return (
        f"update {refused.update}: the gradient is not finite, first at {refused.first_bad_variable} (loss {loss:g}); "
        f"its records are {', '.join(records[:_SHOWN_RECORDS])}{more}. {weights}. A lower --learning_rate or longer "
        f"--num_warmup_steps may help; --{REPLAY_FLAG}={path} computes the update again and names the record at fault"
    )


def read_refused_update(path: str) -> RefusedUpdate:
    """Reads such a file. ValueError, one line, where it is none."""
    try:
        with open_regular(path) as file:
            refused = RefusedUpdate(**json.load(file))
    except OSError as error:
        raise ValueError(f"--{REPLAY_FLAG}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"--{REPLAY_FLAG}: {path} is no refused_update-N.json: {error}") from None
    for name, kind in _TYPES.items():
        if not isinstance(getattr(refused, name), kind):
            raise ValueError(f"--{REPLAY_FLAG}: {path}: {name} is {getattr(refused, name)!r}, which no run writes")
    if not (1 <= refused.ranks == len(refused.records) and 0 <= refused.position < 2**62 and refused.loss_scale >= 1):
        raise ValueError(f"--{REPLAY_FLAG}: {path}: ranks, records, position and loss_scale are not what a run writes")
    return refused


def first_bad_weight(session: Session, names: list[str]) -> Optional[str]:
    """The first of the variables `names` whose value is not finite; None where all are."""
    held = {variable.op.name: variable for variable in session.graph.get_collection("variables")}
    return next((name for name in names if not np.isfinite(session.run(held[name])).all()), None)


def replay_update(config: Config, world: World) -> int:
    """Computes the update of --replay_update again and prints what is not finite. Returns 0 if something is, else 1."""
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    path = config.run.replay_update
    assert path is not None, f"without --{REPLAY_FLAG}"
    refused = read_refused_update(path)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, do_eval=False))
    job = open_on_all_ranks(config, world)
    _check_same(refused, job)
    prefix = os.path.join(os.path.dirname(path), refused.checkpoint) if refused.checkpoint else None
    if prefix:
        restore.check_model(prefix, REPLAY_FLAG, variables.variable_shapes(job.model))
    log.info(f"update {refused.update}: {refused.ranks} ranks, weights of {prefix or 'the start'}")
    replayed = _Replay(job, refused, prefix)
    grads = replayed.gradient()
    norms = _square_norms(grads, refused.loss_scale)
    loss = loss_of(replayed.statistics, config.optim.next_sentence_weight)
    log.info(f"the update: loss {loss:g}, gradient norm {np.sqrt(np.sum(norms)):g}")
    if np.isfinite(np.sum(norms)):
        log.info("not reproduced: the gradient is finite")
        return 1
    bad = [name for name, norm in zip(variables.variable_shapes(job.model), norms) if not np.isfinite(norm)]
    log.info(
        f"reproduced: {len(bad)} of {len(norms)} variables are not finite, first {bad[0] if bad else 'none alone'}"
    )
    log.info(f"first record whose own gradient is not finite: {replayed.first_bad_record or 'none alone'}")
    return 0


def _check_same(refused: RefusedUpdate, job: Job) -> None:
    defaults = {field.name: field.default for field, _ in options_of(*PARTS.values())}
    for name, now in settings_of_update(job.config).items():
        before = refused.settings.get(name, defaults[name])  # a file of an older version lacks newer flags
        if before != now:
            raise ValueError(
                f"--{REPLAY_FLAG}: the update had --{name}={before}, now it is {now}; give the flags of that run"
            )
    if refused.data != job.training_source.index.fingerprint:
        raise ValueError(f"--{REPLAY_FLAG}: --input_files_dir holds other data than that run had")


class _Rank(World):
    """The number of a rank whose part is computed; it exchanges nothing."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class _Replay:
    """The refused update in the making."""

    def __init__(self, job: Job, refused: RefusedUpdate, prefix: Optional[str]) -> None:
        self._refused, self._prefix = refused, prefix
        self._jobs = [job._replace(world=_Rank(rank, refused.ranks)) for rank in range(refused.ranks)]
        inputs = [training_input(of_rank, refused.position) for of_rank in self._jobs]
        self._records = [of_rank.record_names(refused.position) for of_rank in inputs]
        self._examples = [read_examples(job, of_rank, refused.position) for of_rank in inputs]
        self._batches = [of_rank.arrange(part) for of_rank, part in zip(inputs, self._examples)]
        self._counts = (
            float(sum(batch.masked_weights.sum() for batch in self._batches)),
            float(sum(map(len, self._records))),
        )
        self.statistics = Statistics(*[0.0] * len(Statistics._fields))
        self.first_bad_record: Optional[str] = None

    def gradient(self) -> list[np.ndarray]:
        """The sum over all ranks and micro-batches, by variable, multiplied by the loss scale."""
        totals: list[np.ndarray] = []
        with np.errstate(over="ignore", invalid="ignore"):
            for grads in self._micro_batch_gradients():
                totals = [total + grad for total, grad in zip(totals, grads)] if totals else grads
        return totals

    def _micro_batch_gradients(self) -> Iterator[list[np.ndarray]]:
        for job, batch in zip(self._jobs, self._batches):
            graph = _MicroBatchGraph(job, self._refused, self._counts, self._prefix)
            with graph.session:
                for k in range(len(batch.row_splits) - 1):
                    statistics, grads = graph.run(batch, k)
                    self._report(job, k, statistics, grads)
                    if self.first_bad_record is None and not self._is_finite(grads):
                        self.first_bad_record = self._find_bad_record(job, graph)
                    yield grads

    def _report(self, job: Job, k: int, statistics: Statistics, grads: list[np.ndarray]) -> None:
        self.statistics = Statistics(*(total + part for total, part in zip(self.statistics, statistics)))
        norm = np.sqrt(np.sum(_square_norms(grads, self._refused.loss_scale)))
        loss = loss_of(statistics, job.config.optim.next_sentence_weight)
        log.info(f"rank {job.world.rank}, micro-batch {k}: loss {loss:g}, norm of its gradient {norm:g}")

    def _find_bad_record(self, job: Job, graph: _MicroBatchGraph) -> Optional[str]:
        """The first of the rank's records whose gradient is not finite where it is computed in a row of its own."""
        rank = job.world.rank
        for number, record in enumerate(self._records[rank]):
            example = Examples(*(column[number : number + 1] for column in self._examples[rank]))
            if not self._is_finite(graph.run(build_batch(example, 1, pack=False), 0)[1]):
                return f"{record} (rank {rank})"
        return None

    def _is_finite(self, grads: list[np.ndarray]) -> bool:
        return bool(np.isfinite(np.sum(_square_norms(grads, self._refused.loss_scale))))


def read_examples(job: Job, inputs: TrainingInput, update: int) -> Examples:
    """A rank's examples of an update, counted from 0 in the data, as the training step had them."""
    source, visits = job.training_source, inputs.visits(update)
    names = source.index.names(visits.records)
    records = tf.constant(source.index.read(visits.records))
    examples = schema.parse_examples(records, schema.encode_names(names), *source.lengths).numpy()
    return inputs.prepare(update, examples, visits, names)


class _MicroBatchGraph:
    """A session that computes a rank's micro-batches, or single records, as the training step does."""

    def __init__(self, job: Job, refused: RefusedUpdate, counts: tuple[float, float], prefix: Optional[str]) -> None:
        """counts: masked tokens and examples of the update; prefix: the weights, None for initial ones."""
        with tf.Graph().as_default():
            weights = variables.create_variables(job.model, job.config.run.seed)
            self._batch = BatchTensors(*(_placeholder(name) for name in Batch._fields))
            self._k = tf.compat.v1.placeholder(tf.int32, [])
            totals = Counts(*map(tf.constant, counts), stop_requests=tf.constant(0.0))
            scale, updates_read = tf.constant(refused.loss_scale), tf.constant(refused.position, tf.int64)
            sums, grads = train_step.micro_batch_gradient(
                job, weights, self._batch, totals, scale, self._k, updates_read
            )
            self._fetches = sums, grads
            config = device.session_config(job.config.device, job.device.gpu)
            self.session = Session(config=config)
            restore.initialize_variables(self.session, find_start_values(job, weights, prefix)[0])

    def run(self, batch: Batch, k: int) -> tuple[Statistics, list[np.ndarray]]:
        """Statistics and gradient, by variable, of micro-batch k."""
        feed = dict(zip(self._batch, batch))
        return self.session.run(self._fetches, {**feed, self._k: k})


def _placeholder(name: str) -> tf.Tensor:
    rank = 2 if name in ("token_ids", "segment_ids", "position_ids", "example_ids") else 1
    return tf.compat.v1.placeholder(tf.float32 if name == "masked_weights" else tf.int32, [None] * rank)


def _square_norms(grads: list[np.ndarray], loss_scale: float) -> np.ndarray:
    """[variables] float32, of the unscaled gradient, as train_step.measure_gradient computes them."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([np.sum(np.square(grad)) for grad in grads], np.float32) / np.float32(loss_scale**2)
