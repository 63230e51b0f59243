"""LAMB and AdamW in NumPy, float64, one variable at a time.

LAMB: You et al. 2019, arXiv:1904.00962, algorithm 2, with the choices of MLPerf's reference implementation
(mlcommons/training language_model/tensorflow/bert/lamb_optimizer_v1.py): moments corrected for bias with beta1_power
and beta2_power (the betas to the power of the update's 1-based number), epsilon added to the root, weight decay inside
the trust ratio; layer norms and biases have neither decay nor ratio.
AdamW: AdamWeightDecayOptimizer of google-research/bert optimization.py, which has no bias correction and no ratio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_EXEMPT = re.compile("LayerNorm|layer_norm|bias")


class NumpyAdamw:
    """weights, m and v by variable name."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], beta_1: float, beta_2: float, epsilon: float, weight_decay_rate: float
    ) -> None:
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.m = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon = epsilon
        self.weight_decay_rate = weight_decay_rate

    def update(self, gradients: Mapping[str, np.ndarray], learning_rate: float) -> None:
        for name, weight in self.weights.items():
            self._update_moments(name, gradients[name])
            direction = self.m[name] / (np.sqrt(self.v[name]) + self.epsilon)
            if not _EXEMPT.search(name):
                direction = direction + self.weight_decay_rate * weight
            self.weights[name] = weight - learning_rate * direction

    def _update_moments(self, name: str, gradient: np.ndarray) -> None:
        gradient = gradient.astype(np.float64)
        self.m[name] = self.beta_1 * self.m[name] + (1 - self.beta_1) * gradient
        self.v[name] = self.beta_2 * self.v[name] + (1 - self.beta_2) * gradient**2


class NumpyLamb(NumpyAdamw):
    """weights, m and v by variable name, and the beta powers of the next update."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], beta_1: float, beta_2: float, epsilon: float, weight_decay_rate: float
    ) -> None:
        super().__init__(weights, beta_1, beta_2, epsilon, weight_decay_rate)
        self.beta_1_power, self.beta_2_power = beta_1, beta_2

    def update(self, gradients: Mapping[str, np.ndarray], learning_rate: float) -> None:
        for name, weight in self.weights.items():
            self._update_moments(name, gradients[name])
            m_hat = self.m[name] / (1 - self.beta_1_power)
            v_hat = self.v[name] / (1 - self.beta_2_power)
            direction = m_hat / (np.sqrt(v_hat) + self.epsilon)
            ratio = 1.0
            if not _EXEMPT.search(name):
                direction = direction + self.weight_decay_rate * weight
                weight_norm, direction_norm = np.linalg.norm(weight), np.linalg.norm(direction)
                if weight_norm > 0 and direction_norm > 0:
                    ratio = weight_norm / direction_norm
            self.weights[name] = weight - learning_rate * ratio * direction
        self.beta_1_power *= self.beta_1
        self.beta_2_power *= self.beta_2
