"""What grows over the first examples of a run, and how many examples each update has with --rampup_batch_size.

The rule is that of Megatron-LM's --rampup-batch-size START INCREMENT SAMPLES, in integers, so that an update's place in
the data follows from its number alone, whatever the number of ranks.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple, Optional

from bert_pretrain.config.option import require


class RampUp(NamedTuple):
    """START, INCREMENT and EXAMPLES of a flag: a value that grows from START in steps of INCREMENT."""

    start: int
    increment: int
    examples: int  # after which the value is reached that it grows to

    @classmethod
    def parse(cls, flag: str, text: Optional[str]) -> Optional[RampUp]:
        """'32,16,300000' -> RampUp(32, 16, 300000); None for None. ValueError, naming the flag, for another text."""
        if text is None:
            return None
        matched = re.fullmatch(r"\s*(\d{1,10})\s*,\s*(\d{1,10})\s*,\s*(\d{1,18})\s*", text, re.ASCII)
        found = cls(*map(int, matched.groups())) if matched else None
        require(
            found is not None and min(found) >= 1,
            f"--{flag} must be START,INCREMENT,EXAMPLES, three whole numbers of at least 1, got {text!r}",
        )
        return found

    def check(self, flag: str, end: int, what: str) -> None:
        """ValueError where the value, `what`, does not reach `end` in whole steps."""
        require(
            self.start <= end and (end - self.start) % self.increment == 0,
            f"--{flag}={self}: {what} cannot grow from {self.start} in steps of {self.increment} to {end}; give a "
            f"START of at most {end}, and an INCREMENT that divides {end} - START",
        )

    def at(self, examples: int, end: int) -> int:
        """The value after so many examples; it grows evenly to `end`."""
        return min(end, self.start + self.increment * (examples * self._num_steps(end) // self.examples))

    def until(self, value: int, end: int) -> int:
        """The number of examples after which the value is no longer `value`, which is below `end`."""
        next_step = (value - self.start) // self.increment + 1
        return -(-next_step * self.examples // self._num_steps(end))

    def _num_steps(self, end: int) -> int:
        return max(1, (end - self.start) // self.increment)

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Stretch(NamedTuple):
    """Successive updates with the same number of examples."""

    first: int  # the number of its first update, counted from 0
    num_before: int  # examples of the updates before that
    size: int  # examples of each of its updates


class UpdateSizes(NamedTuple):
    """How many examples, over all ranks, each update has; updates are counted from 0."""

    full: int  # G = W x A x B, of every update without a ramp and of those after it
    rampup: Optional[RampUp] = None

    def of(self, update: int) -> int:
        """Examples of an update."""
        return self._stretch(update).size

    def total(self, num_updates: int) -> int:
        """Examples of the first num_updates updates together."""
        stretch = self._stretch(num_updates)
        return stretch.num_before + (num_updates - stretch.first) * stretch.size

    def positions(self, update: int) -> tuple[int, int]:
        """Start, stop of an update in the order of the examples."""
        start = self.total(update)
        return start, start + self.of(update)

    @property
    def first_full(self) -> int:
        """The first update with all its examples."""
        return _stretches(self)[-1].first

    def first_after(self, num_examples: int) -> int:
        """The first update before which so many examples are read."""
        stretch = next(s for s in reversed(_stretches(self)) if s.num_before <= num_examples)
        return stretch.first + -(-(num_examples - stretch.num_before) // stretch.size)

    def between(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(first, stop, size) of each part of the updates first:stop in which all have the same size."""
        ends = [stretch.first for stretch in _stretches(self)[1:]]
        for stretch, end in zip(_stretches(self), [*ends, stop]):
            part = max(first, stretch.first), min(stop, end)
            if part[0] < part[1]:
                yield (*part, stretch.size)

    def _stretch(self, update: int) -> Stretch:
        stretches = _stretches(self)
        if len(stretches) == 1:
            return stretches[0]
        return stretches[bisect.bisect([stretch.first for stretch in stretches], update) - 1]


@functools.lru_cache(maxsize=8)
def _stretches(sizes: UpdateSizes) -> list[Stretch]:
    """All stretches, in order; the last one never ends."""
    full, rampup = sizes
    if rampup is None:
        return [Stretch(0, 0, full)]
    found, update, num_before = [], 0, 0
    while True:
        size = rampup.at(num_before, full)
        found.append(Stretch(update, num_before, size))
        if size == full:
            return found
        num_updates = -(-(rampup.until(size, full) - num_before) // size)
        update, num_before = update + num_updates, num_before + num_updates * size
