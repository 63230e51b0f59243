"""The encoder's own choices; that it is BERT's is tested against Google's and Hugging Face's."""

from __future__ import annotations

import numpy as np
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
        weights = {k: tf.constant(v) for k, v in random_examples.weights(variables.shapes(TINY)).items()}
        rows, kernels = encoder.Rows(*map(tf.constant, batch[:4])), make_kernels(backend)
        whole = encoder.encode(weights, rows, TINY, kernels)
        pruned = encoder.encode(weights, rows, TINY, kernels, wanted=tf.constant(wanted, tf.int32))
        expected, found = session.run([whole.gather(wanted), pruned.gather(wanted)])
        assert pruned.hidden.shape[0] in (None, len(wanted))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
