"""The encoder's own choices; that it is BERT's is tested against Google's and Hugging Face's."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import encoder, variables
from tests.references import random_examples
from tests.references.random_examples import TINY


def test_the_wanted_slots_do_not_depend_on_the_others(backend: Backend) -> None:
    batch = random_examples.in_rows(random_examples.examples(), ((0, 2), (3, 1)), 39)
    masked = batch.masked_positions
    wanted = np.concatenate([masked, batch.cls_positions, masked[:1]])  # [CLS] or a token may be masked twice
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = {k: tf.constant(v) for k, v in random_examples.weights(variables.variable_shapes(TINY)).items()}
        rows, kernels = encoder.Rows(*map(tf.constant, batch[:4])), make_kernels(backend)
        whole = encoder.encode(weights, rows, TINY, kernels)
        pruned = encoder.encode(weights, rows, TINY, kernels, output_slots=tf.constant(wanted, tf.int32))
        expected, found = session.run([whole.gather(wanted), pruned.gather(wanted)])
        assert pruned.hidden.shape[0] in (None, len(wanted))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_the_same_where_only_the_wanted_slots_are_computed(backend: Backend, recompute: bool) -> None:
    batch = random_examples.in_rows(random_examples.examples(), ((0, 2), (3, 1)), 39)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        wanted = tf.constant(np.concatenate([batch.masked_positions, batch.cls_positions]), tf.int32)
        weights = {k: tf.constant(v) for k, v in random_examples.weights(variables.variable_shapes(TINY)).items()}
        weights = {name: weight for name, weight in weights.items() if name.startswith(("bert/embed", "bert/encoder"))}

        def gradients(slots: Optional[tf.Tensor]) -> dict[str, tf.Tensor]:
            rows, kernels = encoder.Rows(*map(tf.constant, batch[:4])), make_kernels(backend)
            hidden = encoder.encode(weights, rows, TINY, kernels, recompute=recompute, output_slots=slots).gather(
                wanted
            )
            factors = tf.random.stateless_normal(tf.shape(hidden), [1, 2])
            grads = tf.gradients(tf.reduce_sum(hidden * factors), [*weights.values()])
            return dict(zip(weights, map(tf.convert_to_tensor, grads)))

        expected, found = session.run([gradients(None), gradients(wanted)])
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2e-5, err_msg=name)
