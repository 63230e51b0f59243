"""What is computed, by device and time limit; standard library only."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Optional

_GIB = 2**30
_LONG = 8  # minutes: from here on three rounds of each measurement


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of all parts."""

    is_gpu: bool
    check_model: str  # configs/model/NAME.json of the correctness parts
    check_examples: int
    speed: dict[str, int]  # benchmarks.training's model -> examples of a micro-batch
    updates: int  # of a turn
    rounds: int
    records: int  # in the shards of a speed part
    compilation_updates: int

    def write(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file)

    @classmethod
    def read(cls, path: str) -> Sizes:
        with open(path, encoding="utf-8") as file:
            return cls(**json.load(file))

    def describe(self) -> str:
        speed = ", ".join(f"{model} with {batch} examples" for model, batch in self.speed.items())
        return (
            f"correctness: {self.check_model} with {self.check_examples} examples of at most 512 tokens; compilations: "
            f"{self.compilation_updates} updates; speed: {speed}, {self.rounds} x {self.updates} updates"
        )


def choose(is_gpu: bool, memory_bytes: Optional[int], minutes: float) -> Sizes:
    """BERT-base for a GPU, by its memory (None: not known, 8 GiB are assumed); small models for a CPU."""
    is_long = minutes >= _LONG
    rounds = 3 if is_long else 1
    if not is_gpu:
        return Sizes(False, "mini", 4, {"mini-512": 6, "tiny-128": 24}, 4, rounds, 512, 100 if is_long else 20)
    # An example of 512 tokens takes about 0.6 GiB in float32, so one for each GiB leaves room for weights and moments.
    examples = 2 ** min(6, round(math.log2(max(1.0, (memory_bytes or 8 * _GIB) / _GIB))))
    return Sizes(
        True, "base", 4, {"base-512": examples, "base-128": 4 * examples}, 16, rounds, 2048, 300 if is_long else 100
    )
