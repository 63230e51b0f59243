"""Storage for the examples that exact mode draws before it writes the first one.

In memory: 29 bytes an example. On disk until the shard is written: 6 bytes a masked token.
"""

from __future__ import annotations

import os
import tempfile
from array import array

import numpy as np

from bert_pretrain.make_data.instances import Pairs

_MASKED = np.dtype([("token", "<u2"), ("replacement", "<i4")])


class DrawnExamples:
    """Sentence pairs in memory, masked tokens and their replacements in a temporary file."""

    _ITEMS_IN_MEMORY = 1 << 20

    def __init__(self, spool_directory: str) -> None:
        self.a_start, self.a_end, self.b_start, self.b_end = (array("I") for _ in range(4))
        self.is_random_next = array("b")
        self.mask_ends = array("q", [0])
        self._masked, self._num_masked = np.empty(self._ITEMS_IN_MEMORY, _MASKED), 0
        self._tokens, self._replacements = self._masked["token"], self._masked["replacement"]
        self._spool = tempfile.TemporaryFile(dir=spool_directory)  # noqa: SIM115  removed with this object

    def __len__(self) -> int:
        return len(self.is_random_next)

    def add(self, pair: tuple[int, int, int, int, bool], tokens: np.ndarray, replacements: np.ndarray) -> None:
        """Appends an example: a_start, a_end, b_start, b_end, is_random_next; its masked tokens, replacements."""
        a_start, a_end, b_start, b_end, is_random_next = pair
        self.a_start.append(a_start)
        self.a_end.append(a_end)
        self.b_start.append(b_start)
        self.b_end.append(b_end)
        self.is_random_next.append(is_random_next)
        if self._num_masked + len(tokens) > len(self._masked):
            self._spill()
        start, end = self._num_masked, self._num_masked + len(tokens)
        self._tokens[start:end], self._replacements[start:end], self._num_masked = tokens, replacements, end
        self.mask_ends.append(self.mask_ends[-1] + len(tokens))

    def _spill(self) -> None:
        self._spool.write(self._masked[: self._num_masked].tobytes())
        self._num_masked = 0

    def finish(self) -> None:
        """Ends adding; from now on examples can be read."""
        self._spill()
        self._spool.flush()

    def pairs(self, chosen: np.ndarray) -> Pairs:
        """The sentence pairs of the chosen examples [E]."""
        columns = (self.a_start, self.a_end, self.b_start, self.b_end)
        ranges = (np.frombuffer(column, np.uint32)[chosen].astype(np.int64) for column in columns)
        return Pairs(*ranges, np.frombuffer(self.is_random_next, np.int8)[chosen].astype(bool))

    def masks(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and replacements of the chosen examples in one array each, and how many each example has [E]."""
        ends = np.frombuffer(self.mask_ends, np.int64)
        starts, num_masked = ends[chosen], ends[chosen + 1] - ends[chosen]
        size, file = _MASKED.itemsize, self._spool.fileno()
        # Read, not mapped: mapped pages would count as memory of this process.
        parts = [os.pread(file, size * num, size * start) for start, num in zip(starts.tolist(), num_masked.tolist())]
        masked = np.frombuffer(b"".join(parts), _MASKED)
        return masked["token"], masked["replacement"], num_masked
