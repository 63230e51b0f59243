"""SIGTERM and SIGINT ask for a clean end: the update in progress is finished, a checkpoint written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Optional

import numpy as np
import tensorflow as tf


class StopRequest:
    """Remembers that this process was told to stop."""

    def __init__(self) -> None:
        self.requested = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, the first signal asks for a clean end and a second one ends the process at once."""
        signals = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, self._receive) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def tensor(self) -> tf.Tensor:
        """1.0 once a stop was asked for, else 0.0; read anew in every session.run."""
        value = tf.numpy_function(lambda: np.float32(self.requested), [], tf.float32, stateful=True)
        value.set_shape([])
        return value

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
