"""One big batch: however examples are cut into micro-batches and rows, the gradient is the same."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import BatchTensors, Examples
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.model import variables
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import train_step
from bert_pretrain.train.device import Device
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.gradient_sum import make_gradient_sum
from bert_pretrain.train.job import Job
from tests import backends
from tests.train.small import MODEL, random_examples

EXAMPLES = 12


def gradient(
    examples: Examples,
    rows_per_micro_batch: int,
    pack: bool,
    model=MODEL,
    backend=None,
    dtype=tf.float32,
    next_sentence_weight: float = 1.0,
    **device,
) -> tuple[dict, Statistics]:
    """Gradient by variable and statistics of one update."""
    optim = OptimConfig(next_sentence_weight=next_sentence_weight)
    config = Config(RunConfig(), DataConfig(), optim, DeviceConfig(**device))
    backend = backend or backends.best()
    job = Job(config, model, World(), Device("cpu", False, 0, dtype, backend, []))
    with tf.Graph().as_default():
        weights = variables.create_variables(model, seed=1)
        batch = row_batch(examples, rows_per_micro_batch, pack, few_shapes=backend.is_compiled)
        zero = tf.constant(0, tf.int64)
        counts = make_gradient_sum(job).count(batch, tf.constant(0.0))
        found = train_step.compute_gradient(job, weights, batch, counts, tf.constant(1.0), zero)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            values, statistics = session.run([found.values, found.statistics])
    return values, Statistics(*statistics)


def row_batch(examples: Examples, rows_per_micro_batch: int, pack: bool, few_shapes: bool = False) -> BatchTensors:
    """The rows and micro-batches of the examples, in the default graph."""
    return BatchTensors(*map(tf.constant, build_batch(examples, rows_per_micro_batch, pack, few_shapes)))


def relative_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    difference = sum(float(np.square(one[name] - other[name], dtype=np.float64).sum()) for name in one)
    return float(np.sqrt(difference / sum(np.square(value, dtype=np.float64).sum() for value in one.values())))


@pytest.fixture(scope="module")
def examples() -> Examples:
    return random_examples(np.random.default_rng(3), EXAMPLES)


@pytest.fixture(scope="module")
def whole(examples: Examples) -> tuple[dict, Statistics]:
    return gradient(examples, EXAMPLES, pack=False)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_micro_batches_and_packing_leave_the_gradient_alone(examples, whole, rows: int, pack: bool) -> None:
    values, statistics = gradient(examples, rows, pack)
    assert relative_difference(whole[0], values) < 1e-5
    # Everything but the slots, padding included, is the same.
    np.testing.assert_allclose(statistics[:9], whole[1][:9], rtol=1e-5)


@pytest.mark.parametrize("compiled", [Backend.XLA, Backend.XLA_LAYERS], ids=lambda backend: backend.value)
def test_empty_rows_of_xla_leave_the_gradient_alone(examples, whole, compiled: Backend) -> None:
    values, statistics = gradient(examples, 5, pack=True, backend=compiled)
    assert relative_difference(whole[0], values) < 1e-5
    np.testing.assert_allclose(statistics[:9], whole[1][:9], rtol=1e-5)
    batch = build_batch(examples, 5, pack=True, few_shapes=True)
    assert statistics.computed == batch.token_ids.size > np.count_nonzero(batch.example_ids)


def test_the_gradient_is_a_weighted_sum_of_those_of_the_two_losses(examples, whole) -> None:
    half, _ = gradient(examples, 5, True, next_sentence_weight=0.5)
    none, statistics = gradient(examples, 5, True, next_sentence_weight=0.0)
    mean = {name: (whole[0][name] + none[name]) / 2 for name in none}
    assert relative_difference(mean, half) < 1e-5
    assert not none["bert/pooler/dense/kernel"].any() and not none["cls/seq_relationship/output_weights"].any()
    assert statistics.next_sentence_count == 0 and statistics.examples == EXAMPLES
    np.testing.assert_allclose(statistics[:3], whole[1][:3], rtol=1e-5)


def test_statistics_count_what_the_records_hold(examples: Examples, whole: tuple[dict, Statistics]) -> None:
    lengths = examples.input_mask.sum(axis=1)
    assert whole[1].masked_lm_count == (examples.masked_lm_weights > 0).sum()
    assert whole[1].next_sentence_count == EXAMPLES
    assert whole[1].tokens == lengths.sum()
    assert whole[1].squared_lengths == np.square(lengths).sum()


def test_dropout_differs_by_update_and_micro_batch_but_not_by_run(examples: Examples) -> None:
    model = MODEL.__class__(**{**MODEL.__dict__, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    first, again = (gradient(examples, 3, True, model)[0] for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert relative_difference(gradient(examples, 3, True)[0], first) > 1e-2


def test_layers_as_programs_drop_the_same_units(examples: Examples) -> None:
    model = MODEL.__class__(**{**MODEL.__dict__, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    one, other = (gradient(examples, 5, True, model, name)[0] for name in (Backend.XLA, Backend.XLA_LAYERS))
    assert relative_difference(one, other) < 1e-5


def test_recomputing_changes_nothing_but_memory(examples: Examples, backend: Backend) -> None:
    model = MODEL.__class__(**{**MODEL.__dict__, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    kept, again = (gradient(examples, 5, True, model, backend, recompute=r)[0] for r in (False, True))
    assert relative_difference(kept, again) < 1e-6
