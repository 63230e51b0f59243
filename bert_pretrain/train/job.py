"""What every part of a training job needs to know, found out once before anything is built."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.world import World


class Job(NamedTuple):
    """Settings, the network's shape, the ranks, and how the network's arithmetic is done."""

    config: Config
    model: ModelConfig
    world: World
    compute_dtype: tf.DType
    backend: Backend

    @property
    def batch_examples(self) -> int:
        """Examples of an update over all ranks: G = W x A x B."""
        return self.world.size * self.config.examples_per_rank()
