"""How a job goes on with fewer ranks than it began with, so that its updates keep their examples and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bert_pretrain import cli
from bert_pretrain.config.training import PARTS, Config


class UpdateDivision(NamedTuple):
    """An update's W ranks x A micro-batches x B examples, and the flags that make it so."""

    num_ranks: int
    num_micro_batches: int  # of a rank
    batch_size: int
    flags: list[str]  # to be added to the job's

    def __str__(self) -> str:
        num_examples = self.num_ranks * self.num_micro_batches * self.batch_size
        parts = f"{self.num_ranks} ranks x {self.num_micro_batches} micro-batches x {self.batch_size}"
        return f"{num_examples} examples an update as before: {parts}"


def divide_update(flags: Sequence[str], num_ranks: int, most_ranks: int) -> UpdateDivision:
    """The division among at most `most_ranks` ranks of the update that `flags` describe for `num_ranks` ranks.

    The ranks are as many as divide the update evenly; micro-batches are no larger than before. ValueError for flags
    that the trainer refuses, too.
    """
    config = Config(**dict(zip(PARTS, cli.read_arguments(flags, list(PARTS.values())))))
    num_examples, pieces = num_ranks * config.examples_per_rank(), config.fixed_micro_batches(num_ranks)
    if most_ranks >= num_ranks:
        return UpdateDivision(num_ranks, config.optim.num_accumulation_steps, config.data.train_batch_size, [])
    largest = num_examples // pieces if pieces else config.data.train_batch_size
    shares = [num_examples, *(config.update_sizes(num_ranks).rampup or ())[:2]]  # of which every update is made
    piece = largest if pieces else 1
    ranks = next(n for n in range(most_ranks, 0, -1) if all(share % (n * piece) == 0 for share in shares))
    per_rank = num_examples // ranks
    batch_size = next(size for size in range(min(largest, per_rank), 0, -1) if per_rank % size == 0)
    added = [f"--num_accumulation_steps={per_rank // batch_size}", f"--train_batch_size={batch_size}"]
    if pieces:
        added.append(f"--invariant_micro_batches={pieces}")
    if config.optim.lr_scaling == "linear":
        added += ["--lr_scaling=none", f"--learning_rate={config.optim.learning_rate * num_ranks!r}"]
    return UpdateDivision(ranks, per_rank // batch_size, batch_size, added)
