"""From record numbers to tensors: the input of training and of evaluation in a tf.compat.v1 graph.

Dataset.range counts updates (or evaluation batches) -> one call reads their records -> one operation parses them ->
one call checks them and lays them into rows -> prefetch. The pipeline has no state: order.py computes which records
an update has, so a run resumes by starting at its update.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.rampup import RampUp, UpdateSizes
from bert_pretrain.data import schema
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.dynamic_masking import DynamicMasking
from bert_pretrain.data.order import (
    Blocks,
    Order,
    Pool,
    Visits,
    evaluation_slice,
    examples_for_rank,
    records_for_rank,
)
from bert_pretrain.data.packing import build_batch, build_micro_batches
from bert_pretrain.data.schema import Batch, BatchTensors, Examples, check_examples
from bert_pretrain.data.truncation import truncate_examples
from bert_pretrain.tensorflow_compat import compat

_BATCHES_AHEAD = 4  # enough to cover a slow read; a few megabytes
_EVALUATED_AHEAD = 1024  # records
_THREADS = 2  # of the pipeline alone: the training step keeps all of TensorFlow's


class UpdateShape(NamedTuple):
    """How an update's examples are divided among ranks, micro-batches and rows."""

    examples_per_rank: int  # of the largest updates
    rows_per_micro_batch: int  # at most
    pack: bool = True  # several examples into a row
    rank: int = 0
    num_ranks: int = 1
    fixed_micro_batches: int = 0  # of the largest updates over all ranks (--rank_invariant); 0: by rows_per_micro_batch
    few_shapes: bool = False  # rows for a backend that compiles a program for each shape (packing.add_empty_rows)
    rampup_batch_size: Optional[RampUp] = None  # of the examples of an update over all ranks
    rampup_seq_length: Optional[RampUp] = None  # of the tokens to which records are cut


class TrainingInput:
    """The input_fn of training: this rank's examples of update `first_update` and of all that follow."""

    def __init__(
        self,
        source: Source,
        shape: UpdateShape,
        seed: int,
        first_update: int = 0,
        masking: Optional[DynamicMasking] = None,
    ) -> None:
        """masking draws the masks of each visit; None: the masks of the records."""
        self._source, self._shape, self._masking = source, shape, masking
        self._first_update = first_update
        self._sizes = UpdateSizes(shape.examples_per_rank * shape.num_ranks, shape.rampup_batch_size)
        self._order = Order(source.index.records_per_shard, seed)
        self._pool_read_ahead: Optional[Pool] = None  # the newest pool for which read-ahead was requested
        self.initializer: Optional[tf.Operation] = None  # set by __call__; restarts the input at first_update

    def __call__(self) -> dict[str, tf.Tensor]:
        """In the default graph: a Batch's fields, and input_wait_seconds, how long the step waited for them."""
        updates = tf.data.Dataset.range(self._first_update, sys.maxsize)
        per_rank = None if self._shape.rampup_batch_size else self._shape.examples_per_rank
        batches = _pipeline(updates, self._source, self._read_update, self.prepare, self.arrange, per_rank)
        iterator = tf.compat.v1.data.make_initializable_iterator(batches)
        self.initializer = iterator.initializer
        # Estimator runs the operations of this collection when it creates its session.
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, self.initializer)
        # Python's clock, because TensorFlow refuses its own one where --deterministic is set.
        requested = tf.ensure_shape(tf.numpy_function(time.time, [], tf.float64), [])
        with tf.control_dependencies([requested]):
            batch, built = iterator.get_next()
        shape = self._shape
        if not shape.fixed_micro_batches and shape.examples_per_rank <= shape.rows_per_micro_batch:
            batch.row_splits.set_shape([2])  # of one micro-batch
        # The time at which get_next returns would be wrong: returning may wait for a thread of the training step.
        return {**batch._asdict(), "input_wait_seconds": tf.maximum(built - requested, 0.0)}

    def prepare(self, update: int, examples: Examples, visits: Visits, names: Sequence[str]) -> Examples:
        """The records [E] of an update as it has them: cut to its length, with the masks of these visits.

        ValueError, naming a record by its entry of names [E], for one that cannot be trained on.
        """
        check_examples(examples, self._source.limits, names)
        if self._shape.rampup_seq_length:
            whole = self._source.lengths.seq_length
            examples = truncate_examples(examples, self._shape.rampup_seq_length.at(self._sizes.total(update), whole))
        return self._masking.redraw(examples, visits, names) if self._masking else examples

    def arrange(self, examples: Examples) -> Batch:
        """This rank's examples of an update, in the order of `visits`, as rows and micro-batches."""
        shape = self._shape
        if shape.fixed_micro_batches:
            num_micro_batches = len(examples.input_ids) * shape.fixed_micro_batches // self._sizes.full
            return build_micro_batches(examples, num_micro_batches, shape.pack, shape.few_shapes)
        return build_batch(examples, shape.rows_per_micro_batch, shape.pack, shape.few_shapes)

    def records(self, update: int) -> np.ndarray:
        """Numbers of this rank's records in an update."""
        return self.visits(update).records

    def visits(self, update: int) -> Visits:
        """This rank's records in an update, each with its epoch."""
        shape, visits = self._shape, self._order.visits(*self._sizes.positions(update))
        if shape.num_ranks == 1 and not shape.fixed_micro_batches:
            return visits
        sizes = self._source.index.sizes(visits.records)
        if shape.fixed_micro_batches:
            num_micro_batches = len(sizes) * shape.fixed_micro_batches // self._sizes.full
            chosen = examples_for_rank(sizes, num_micro_batches, shape.rank, shape.num_ranks)
        else:
            chosen = records_for_rank(sizes, shape.rank, shape.num_ranks)
        return Visits(visits.records[chosen], visits.epochs[chosen])

    def record_names(self, update: int) -> list[str]:
        """'path:number' of this rank's records in an update, numbers from 0 in each shard."""
        return [f"{place.path}:{place.number}" for place in map(self._source.index.locate, self.records(update))]

    def _read_update(self, update: int) -> Visits:
        self._read_ahead(update)
        return self.visits(update)

    def _read_ahead(self, update: int) -> None:
        """At the start of a pool, requests that the next one be read into the page cache; at first, this one too."""
        pool = self._order.pool(self._sizes.total(update))
        if pool == self._pool_read_ahead:
            return
        following = self._order.pool_after(pool)
        pools = [following] if self._pool_read_ahead else [pool, following]
        self._pool_read_ahead = pool
        threading.Thread(target=self._request, args=[pools], daemon=True).start()  # the request itself may take long

    def _request(self, pools: list[Pool]) -> None:
        with contextlib.suppress(ValueError, OSError):  # an unreadable file is reported when a record of it is needed
            for pool in pools:
                self._source.index.will_need(self._order.pool_blocks(pool))


class EvaluationInput:
    """This rank's slice of a finite set in file order, each example once."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        pack: bool,
        max_examples: Optional[int] = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """Reads the first max_examples of the data, or all of it. The last batch may be smaller."""
        self._source = source
        self._batch_size = batch_size
        self._pack = pack
        num_records = source.index.num_records
        self.num_examples = num_records if max_examples is None else min(max_examples, num_records)  # of all ranks
        self._start, self._stop = evaluation_slice(self.num_examples, rank, num_ranks)

    def tensors(self) -> tuple[dict[str, tf.Tensor], tf.Operation]:
        """In the default graph: a Batch's fields, all rows in one micro-batch, and the operation that starts over."""
        num_batches = -(-(self._stop - self._start) // self._batch_size)
        numbers = tf.data.Dataset.range(num_batches)
        batches = _pipeline(numbers, self._source, self._read_batch, self._prepare, self._arrange, None)
        iterator = tf.compat.v1.data.make_initializable_iterator(batches)
        batch, _ = iterator.get_next()
        return batch._asdict(), iterator.initializer

    def _prepare(self, number: int, examples: Examples, visits: Visits, names: Sequence[str]) -> Examples:
        check_examples(examples, self._source.limits, names)
        return examples

    def _arrange(self, examples: Examples) -> Batch:
        return build_batch(examples, self._batch_size, self._pack)

    def _read_batch(self, number: int) -> Visits:
        start = self._start + number * self._batch_size
        records = np.arange(start, min(start + self._batch_size, self._stop))
        if self._source.index.is_remote and number % max(1, _EVALUATED_AHEAD // self._batch_size) == 0:
            ahead = np.arange(start, min(start + 2 * _EVALUATED_AHEAD, self._stop))  # a disk does so by itself
            self._source.index.will_need(Blocks(ahead, np.ones_like(ahead)))
        return Visits(records, np.zeros_like(records))


def _pipeline(
    steps: tf.data.Dataset[tf.Tensor],
    source: Source,
    visits_of: Callable[[int], Visits],
    prepare: Callable[[int, Examples, Visits, Sequence[str]], Examples],
    arrange_rows: Callable[[Examples], Batch],
    num_examples: Optional[int],
) -> tf.data.Dataset[tuple[BatchTensors, tf.Tensor]]:
    """(Batch, second at which it was built) for the visits_of each step.

    num_examples is the number of examples of each batch, None where batches differ in it.
    """

    @tf.autograph.experimental.do_not_convert
    def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
        visits = visits_of(int(step))
        contents, names = source.index.read(visits.records), source.index.names(visits.records)
        return (np.array(contents, object), np.array(list(map(os.fsencode, names)), object), *visits)

    @tf.autograph.experimental.do_not_convert
    def arrange(
        step: np.ndarray, names: np.ndarray, records: np.ndarray, epochs: np.ndarray, *columns: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        decoded = [os.fsdecode(name) for name in names]
        rows = arrange_rows(prepare(int(step), Examples(*columns), Visits(records, epochs), decoded))
        return (*rows, np.array(time.time()))

    @tf.autograph.experimental.do_not_convert
    def build(step: tf.Tensor) -> tuple[BatchTensors, tf.Tensor]:
        serialized, names, *visits = tf.numpy_function(read, [step], [tf.string, tf.string, tf.int64, tf.int64])
        examples = schema.parse_examples(tf.ensure_shape(serialized, [num_examples]), names, *source.lengths)
        *arranged, built = tf.numpy_function(arrange, [step, names, *visits, *examples], [*_dtypes(), tf.float64])
        return _with_shapes(arranged, num_examples), tf.ensure_shape(built, [])

    batches = steps.map(build, num_parallel_calls=_THREADS, deterministic=True)
    return batches.prefetch(_BATCHES_AHEAD).with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.threading.private_threadpool_size = _THREADS
    options.threading.max_intra_op_parallelism = 1
    compat.disable_autotune(options)
    return options


def _dtypes() -> list[tf.DType]:
    return [tf.float32 if name == "masked_weights" else tf.int32 for name in Batch._fields]


def _with_shapes(tensors: list[tf.Tensor], num_examples: Optional[int]) -> BatchTensors:
    rows, masked, examples, splits = [None, None], [None], [num_examples], [None]
    shapes = {
        "token_ids": rows,
        "segment_ids": rows,
        "position_ids": rows,
        "example_ids": rows,
        "masked_positions": masked,
        "masked_ids": masked,
        "masked_weights": masked,
        "cls_positions": examples,
        "next_sentence_labels": examples,
        "row_splits": splits,
        "masked_splits": splits,
        "example_splits": splits,
    }
    for tensor, name in zip(tensors, BatchTensors._fields):
        tensor.set_shape(shapes[name])
    return BatchTensors(*tensors)
