"""Our network against Google's modeling.py and run_pretraining.py on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest

from bert_pretrain.model import variables
from tests.model import our_network
from tests.references import google_modeling, random_examples
from tests.references.random_examples import LENGTHS, TINY, WIDTH

LAYOUTS = {
    "one example a row": (((0,), (1,), (2,), (3,)), WIDTH),
    "packed": (((0, 2), (3, 1)), 39),
    "all in one row, in another order": (((3, 1, 0, 2),), sum(LENGTHS)),
}


@pytest.fixture(scope="module", name="batch")
def _batch():
    return random_examples.examples()


@pytest.fixture(scope="module", name="weights")
def _weights():
    return random_examples.weights(variables.variable_shapes(TINY))


@pytest.fixture(scope="module", name="google")
def _google(weights, batch):
    return google_modeling.results(TINY, weights, batch)


@pytest.fixture(scope="module", name="ours", params=LAYOUTS.values(), ids=LAYOUTS.keys())
def _ours(request, weights, batch, backend):
    return our_network.results(TINY, weights, random_examples.in_rows(batch, *request.param), backend)


def test_logits_are_googles(ours, google, batch):
    used = batch.masked_lm_weights.reshape(-1) > 0
    assert np.ptp(google.masked_lm_logits) > 1.0  # the weights are large enough to tell networks apart
    np.testing.assert_allclose(ours.masked_lm_logits, google.masked_lm_logits[used], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.next_sentence_logits, google.next_sentence_logits, rtol=0, atol=1e-4)


def test_layer_norm_has_googles_epsilon(weights, batch):
    # The variance of these embeddings is about 1e-11, so an epsilon of 1e-5 instead of 1e-12 would change the logits.
    small = {name: value * 1e-5 if name.endswith("_embeddings") else value for name, value in weights.items()}
    google = google_modeling.results(TINY, small, batch)
    ours = our_network.results(TINY, small, random_examples.in_rows(batch, *LAYOUTS["packed"]))
    np.testing.assert_allclose(ours.next_sentence_logits, google.next_sentence_logits, rtol=0, atol=1e-4)


def test_losses_are_googles(ours, google):
    assert ours.masked_lm_loss == pytest.approx(google.masked_lm_loss, rel=1e-5)
    assert ours.next_sentence_loss == pytest.approx(google.next_sentence_loss, rel=1e-5)


def test_gradients_are_googles(ours, google):
    assert set(ours.gradients) == set(google.gradients)
    errors = our_network.gradient_errors(ours.gradients, google.gradients)
    assert {name: error for name, error in errors.items() if error > 1e-4} == {}
