"""Our network against Hugging Face's BertForPreTraining on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest

from bert_pretrain.model import variables
from tests.model import our_network
from tests.references import random_examples
from tests.references.random_examples import TINY, WIDTH

pytestmark = pytest.mark.interop

LAYOUTS = {"one example a row": (((0,), (1,), (2,), (3,)), WIDTH), "packed": (((0, 2), (3, 1)), 39)}


@pytest.fixture(scope="module", name="batch")
def _batch():
    return random_examples.examples()


@pytest.fixture(scope="module", name="weights")
def _weights():
    return random_examples.weights(variables.variable_shapes(TINY))


@pytest.fixture(scope="module", name="theirs")
def _theirs(weights, batch):
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} comes with the interop extra: bash init_tf.sh --interop")
    from tests.references import hugging_face  # imports both, which takes seconds

    return hugging_face.results(TINY, weights, batch)


@pytest.fixture(scope="module", name="ours", params=LAYOUTS.values(), ids=LAYOUTS.keys())
def _ours(request, weights, batch, backend):
    return our_network.results(TINY, weights, random_examples.in_rows(batch, *request.param), backend)


def test_logits_are_hugging_faces(ours, theirs, batch):
    example, slot = np.nonzero(batch.masked_lm_weights)
    masked_logits = theirs.prediction_logits[example, batch.masked_lm_positions[example, slot]]
    assert np.ptp(masked_logits) > 1.0
    np.testing.assert_allclose(ours.masked_lm_logits, masked_logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.next_sentence_logits, theirs.seq_relationship_logits, rtol=0, atol=1e-4)


def test_the_loss_is_hugging_faces(ours, theirs):
    assert ours.masked_lm_loss + ours.next_sentence_loss == pytest.approx(theirs.loss, rel=1e-5)


def test_gradients_are_hugging_faces(ours, theirs):
    assert set(ours.gradients) == set(theirs.gradients)
    errors = our_network.gradient_errors(ours.gradients, theirs.gradients)
    assert {name: error for name, error in errors.items() if error > 1e-4} == {}
