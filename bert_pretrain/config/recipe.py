"""The settings of scripts/pretrain_text.sh besides those of make_data and run."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.model_sizes import SIZES
from bert_pretrain.config.option import option, require, require_numbers


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """Recipe: what is chosen where no other flag says it."""

    hours: Optional[float] = option(
        None,
        "Time for training and evaluation, at most; 40 epochs of a small text take less. Default: an hour for each 1.2 "
        "million tokens of text, at least 3 minutes, at most 8 hours on CPUs and 24 on GPUs.",
    )
    model_size: Optional[str] = option(
        None, "Size of a new model. Default: the largest that text and time suffice for.", tuple(SIZES)
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(self.hours is None or self.hours > 0, f"--hours must be above 0, got {self.hours}")


@dataclasses.dataclass(frozen=True)
class LauncherConfig:
    """Several processes: how bert_pretrain.launch starts the training again; may differ from start to start."""

    max_restarts: int = option(
        0, "After a crash, training starts again from its last checkpoint, at most so many times. Needs NP or HOSTFILE."
    )
    rejoin_seconds: int = option(10, "Seconds that a restart waits for a host that does not answer.")

    def check(self, num_ranks: int) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        for name in ("max_restarts", "rejoin_seconds"):
            value = getattr(self, name)
            require(value >= 0, f"--{name} must be at least 0, got {value}")
        require(
            num_ranks > 1 or not self.max_restarts,
            "--max_restarts belongs to the launcher of several processes, and there is one here; set NP, or leave it "
            "out: the same command goes on after a crash",
        )
