"""SIGTERM and SIGINT request a clean end: the current update is finished, a checkpoint is written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Optional

import numpy as np
import tensorflow as tf


class StopRequest:
    """Records that this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the first signal requests a clean end and a second one ends the process at once."""
        signals = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, self._receive) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def tensor(self) -> tf.Tensor:
        """float32 scalar, 1.0 once a stop was requested, else 0.0; read again in every session.run."""
        value = tf.numpy_function(lambda: np.float32(self.requested), [], tf.float32)
        value.set_shape([])
        return value

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
