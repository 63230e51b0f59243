"""LAMB as MLPerf's reference has it and Google's AdamW (facts of 2020), one variable at a time, in float64.

LAMB: You et al. 2019, algorithm 2, with the choices of MLPerf's BERT reference: moments corrected for bias with
beta1_power and beta2_power (the betas to the power of the update's 1-based number), epsilon outside the root, weight
decay inside the trust ratio; LayerNorm and bias are neither decayed nor scaled by the ratio.
AdamW: Google's AdamWeightDecayOptimizer, which has no bias correction and no ratio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_EXEMPT = re.compile("LayerNorm|layer_norm|bias")


class NumpyLamb:
    """weights, first and second moments by variable name, and the beta powers of the next update."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], beta_1: float, beta_2: float, epsilon: float, weight_decay_rate: float
    ) -> None:
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.beta_1_power, self.beta_2_power = beta_1, beta_2
        self.epsilon = epsilon
        self.weight_decay_rate = weight_decay_rate

    def update(self, gradients: Mapping[str, np.ndarray], learning_rate: float) -> None:
        for name, weight in self.weights.items():
            gradient = gradients[name].astype(np.float64)
            self.first[name] = self.beta_1 * self.first[name] + (1 - self.beta_1) * gradient
            self.second[name] = self.beta_2 * self.second[name] + (1 - self.beta_2) * gradient**2
            first = self.first[name] / (1 - self.beta_1_power)
            second = self.second[name] / (1 - self.beta_2_power)
            step = first / (np.sqrt(second) + self.epsilon)
            ratio = 1.0
            if not _EXEMPT.search(name):
                step = step + self.weight_decay_rate * weight
                weight_norm, step_norm = np.linalg.norm(weight), np.linalg.norm(step)
                if weight_norm > 0 and step_norm > 0:
                    ratio = weight_norm / step_norm
            self.weights[name] = weight - learning_rate * ratio * step
        self.beta_1_power *= self.beta_1
        self.beta_2_power *= self.beta_2


class NumpyAdamw:
    """weights, first and second moments by variable name."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], beta_1: float, beta_2: float, epsilon: float, weight_decay_rate: float
    ) -> None:
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.epsilon = epsilon
        self.weight_decay_rate = weight_decay_rate

    def update(self, gradients: Mapping[str, np.ndarray], learning_rate: float) -> None:
        for name, weight in self.weights.items():
            gradient = gradients[name].astype(np.float64)
            self.first[name] = self.beta_1 * self.first[name] + (1 - self.beta_1) * gradient
            self.second[name] = self.beta_2 * self.second[name] + (1 - self.beta_2) * gradient**2
            step = self.first[name] / (np.sqrt(self.second[name]) + self.epsilon)
            if not _EXEMPT.search(name):
                step = step + self.weight_decay_rate * weight
            self.weights[name] = weight - learning_rate * step
