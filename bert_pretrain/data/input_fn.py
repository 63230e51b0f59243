"""From record numbers to tensors: the input of training and of evaluation in a tf.compat.v1 graph.

Dataset.range counts updates (or evaluation batches) -> one call reads their records -> one operation parses them ->
one call checks them and lays them into rows -> prefetch. The pipeline has no state of its own: which records an update
has is arithmetic (order.py), so a run resumes by starting at its update.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import threading
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain import compat
from bert_pretrain.config.training import DataConfig
from bert_pretrain.data import manifest, rank_balance, schema
from bert_pretrain.data.order import Order, evaluation_slice, update_slice
from bert_pretrain.data.packing import lay_out
from bert_pretrain.data.schema import Batch, Examples
from bert_pretrain.data.shards import ShardIndex, find_shards
from bert_pretrain.data.validation import Limits, check_examples

_BATCHES_AHEAD = 4  # enough to ride out a slow read, and a few megabytes
_THREADS = 2  # of its own: the training step keeps all of TensorFlow's


class Lengths(NamedTuple):
    """S and P of a data set's records."""

    seq_length: int
    max_predictions: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, and what its records must be like."""

    index: ShardIndex
    lengths: Lengths
    limits: Limits

    @classmethod
    def open(
        cls, directories: Sequence[str], flags: DataConfig, limits: Limits, rank: int = 0, num_ranks: int = 1
    ) -> Source:
        """Finds and indexes the shards in `directories`. ValueError, one line, for whatever is wrong with them.

        A directory with a manifest.json must hold what that says.
        """
        index = ShardIndex(find_shards(directories, flags.skip_unreadable, is_root=rank == 0), rank, num_ranks)
        lengths = read_lengths(index, flags)
        for directory in directories:
            own = [path for path in index.paths if os.path.samefile(os.path.dirname(path) or ".", directory)]
            manifest.enforce(directory, ShardIndex(own), *lengths)
        return cls(index, lengths, limits)


def read_lengths(index: ShardIndex, flags: DataConfig) -> Lengths:
    """S and P from the first record of each shard. ValueError where shards or flags disagree, naming both numbers."""
    firsts = np.cumsum(index.records_per_shard) - index.records_per_shard
    names = index.names(firsts)
    found = [Lengths(*schema.record_lengths(record, name)) for record, name in zip(index.read(firsts), names)]
    for name, lengths in zip(names, found):
        if lengths != found[0]:
            raise ValueError(
                f"{name}: records here have {lengths.seq_length} tokens and {lengths.max_predictions} predictions, "
                f"those of {index.paths[0]} have {found[0].seq_length} and {found[0].max_predictions}; "
                f"train on data of one kind at a time"
            )
    for flag, stored in zip(("max_seq_length", "max_predictions_per_seq"), found[0]):
        given = getattr(flags, flag)
        if given is not None and given != stored:
            raise ValueError(
                f"--{flag} is {given}, but the records of {index.paths[0]} have {stored}; "
                f"leave the flag out and it is read from the data"
            )
    return found[0]


class TrainingInput:
    """The input_fn of training: rank's examples of update `first_update`, the next update, and so on for ever."""

    def __init__(
        self,
        source: Source,
        examples_per_rank: int,
        rows_per_micro_batch: int,
        pack: bool,
        seed: int,
        first_update: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._source = source
        self._examples_per_rank = examples_per_rank
        self._rows_per_micro_batch = rows_per_micro_batch
        self._pack = pack
        self._first_update = first_update
        self._rank = rank
        self._num_ranks = num_ranks
        self._order = Order(source.index.records_per_shard, seed)
        self._announced = None
        self.initializer: Optional[tf.Operation] = None  # once called: takes the input back to first_update

    def __call__(self) -> dict[str, tf.Tensor]:
        """A Batch's fields and input_wait_seconds, for which the step stood waiting, in the default graph."""
        updates = tf.data.Dataset.range(self._first_update, sys.maxsize)
        batches = _pipeline(
            updates, self._source, self._read_update, self._rows_per_micro_batch, self._pack, self._examples_per_rank
        )
        iterator = tf.compat.v1.data.make_initializable_iterator(batches)
        self.initializer = iterator.initializer
        # Estimator runs what is in this collection when it makes its session.
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, self.initializer)
        asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            batch, made = iterator.get_next()
        # Not the time at which get_next ends: that operation's end may itself wait for a thread of the step.
        return {**batch._asdict(), "input_wait_seconds": tf.maximum(made - asked, 0.0)}

    def records(self, update: int) -> np.ndarray:
        """Numbers of this rank's records in an update."""
        records = self._order.records(*update_slice(update, self._examples_per_rank * self._num_ranks))
        if self._num_ranks == 1:
            return records
        return records[rank_balance.share(self._source.index.sizes(records), self._rank, self._num_ranks)]

    def record_names(self, update: int) -> list[str]:
        """'path:number' of this rank's records in an update, numbers from 0 in each shard."""
        locations = [self._source.index.locate(record) for record in self.records(update)]
        return [f"{location.path}:{location.number}" for location in locations]

    def _read_update(self, update: int) -> np.ndarray:
        self._read_ahead(update)
        return self.records(update)

    def _read_ahead(self, update: int) -> None:
        """On entering a pool, has the next one read into the page cache; the first time, this one too."""
        start, _ = update_slice(update, self._examples_per_rank * self._num_ranks)
        pool = self._order.pool(start)
        if pool == self._announced:
            return
        following = self._order.pool_after(pool)
        pools = [following] if self._announced else [pool, following]
        self._announced = pool
        threading.Thread(target=self._announce, args=[pools], daemon=True).start()  # the hint itself may take a while

    def _announce(self, pools: list) -> None:
        with contextlib.suppress(ValueError, OSError):  # what cannot be read is reported when it is needed
            for pool in pools:
                self._source.index.will_need(self._order.pool_blocks(pool))


class EvaluationInput:
    """A finite set in file order, each example once; rank's share of it."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        pack: bool,
        max_examples: Optional[int] = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Takes the first max_examples of the data, or all of it; the last batch may be smaller."""
        self._source = source
        self._batch_size = batch_size
        self._pack = pack
        num_records = source.index.num_records
        self.num_examples = num_records if max_examples is None else min(max_examples, num_records)  # all ranks'
        self._start, self._stop = evaluation_slice(self.num_examples, rank, num_ranks)

    def tensors(self) -> tuple[dict[str, tf.Tensor], tf.Operation]:
        """A Batch's fields, all rows in one micro-batch, and the operation that starts over, in the default graph."""
        num_batches = -(-(self._stop - self._start) // self._batch_size)
        batches = _pipeline(
            tf.data.Dataset.range(num_batches), self._source, self._read_batch, self._batch_size, self._pack, None
        )
        iterator = tf.compat.v1.data.make_initializable_iterator(batches)
        batch, _ = iterator.get_next()
        return batch._asdict(), iterator.initializer

    def _read_batch(self, number: int) -> np.ndarray:
        start = self._start + number * self._batch_size
        return np.arange(start, min(start + self._batch_size, self._stop))


def _pipeline(
    steps: tf.data.Dataset,
    source: Source,
    records: Callable[[int], np.ndarray],
    rows_per_micro_batch: int,
    pack: bool,
    num_examples: Optional[int],
) -> tf.data.Dataset:
    """Batches of the records that `records` names for each step, and the second at which each was made.

    num_examples where all batches have as many.
    """

    @tf.autograph.experimental.do_not_convert
    def read(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = records(int(step))
        return np.array(source.index.read(numbers), object), np.array(source.index.names(numbers), object)

    @tf.autograph.experimental.do_not_convert
    def arrange(names: np.ndarray, *columns: np.ndarray) -> Batch:
        examples = Examples(*columns)
        check_examples(examples, source.limits, [name.decode() for name in names])
        return lay_out(examples, rows_per_micro_batch, pack)

    @tf.autograph.experimental.do_not_convert
    def make(step: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        serialized, names = tf.numpy_function(read, [step], [tf.string, tf.string])
        serialized.set_shape([num_examples])
        names.set_shape([num_examples])
        examples = schema.parse(serialized, names, *source.lengths)
        batch = Batch(*tf.numpy_function(arrange, [names, *examples], list(_dtypes())))
        for tensor, shape in zip(batch, _shapes(num_examples)):
            tensor.set_shape(shape)
        with tf.control_dependencies(list(batch)):
            return batch, tf.timestamp()

    options = tf.data.Options()
    options.threading.private_threadpool_size = _THREADS
    options.threading.max_intra_op_parallelism = 1
    compat.disable_autotune(options)
    made = steps.map(make, num_parallel_calls=_THREADS, deterministic=True)
    return made.prefetch(_BATCHES_AHEAD).with_options(options)


def _dtypes() -> Batch:
    return Batch(*(tf.float32 if name == "masked_weights" else tf.int32 for name in Batch._fields))


def _shapes(num_examples: Optional[int]) -> Batch:
    rows, masked, examples, splits = [None, None], [None], [num_examples], [None]
    return Batch(
        token_ids=rows,
        segment_ids=rows,
        position_ids=rows,
        example_ids=rows,
        masked_positions=masked,
        masked_ids=masked,
        masked_weights=masked,
        cls_positions=examples,
        next_sentence_labels=examples,
        row_splits=splits,
        masked_splits=splits,
        example_splits=splits,
    )


_EXPLANATIONS = (
    (r"^ValueError: (.+)$", r"\1"),  # raised here, passed through numpy_function
    (
        r"Name: (.+), Key: (\w+), Index: \d+\.\s+Number of \w+ values != expected\.\s+"
        r"Values size: (\d+) but output shape: \[(\d+)\]",
        r"\1: \2 has \3 values, the first record of the data has \4; train on data of one kind at a time",
    ),
    (
        r"Name: (.+), Feature: (\w+) .*is required but could not be found",
        r"\1: feature \2 is missing; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Name: (.+), Key: (\w+), .*Data type: (\w+) but expected type: (\w+)",
        r"\1: \2 holds \3 values, expected \4; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Could not parse example input",
        r"a record is no tf.train.Example although its checksum is right; make the shards again",
    ),
)


def explain(error: Exception) -> Optional[ValueError]:
    """One line for what session.run raised, where the input is to blame; None where it is not.

    Next to tf.errors.OpError this knows UnicodeDecodeError, which session.run raises where TensorFlow's message
    quotes a record's bytes.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="replace")
    else:
        message = getattr(error, "message", None) or ""
    for pattern, line in _EXPLANATIONS:
        match = re.search(pattern, message, re.MULTILINE)
        if match:
            return ValueError(match.expand(line))
    return None
