"""What an update costs on many ranks, from what it costs on one: `python -m benchmarks.predict`.

    update = compute x straggler + max(0, exchange - overlap) + optimizer

- compute: seconds of forward and backward over a rank's tokens; padding is hardly computed.
- straggler: the slowest rank's tokens over the mean rank's. All wait for it, because they exchange once an update.
- exchange: a ring sends and receives 2 (W - 1) / W times the gradient, in 2 (W - 1) messages one after the other.
- overlap: exchange that goes on under the backward pass. Here it is 0: gradients are exchanged once, after the last
  micro-batch, since that sends the least.
- optimizer: norms, clipping, LAMB over all parameters, the same on every rank.
"""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import numpy as np

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data import order
from bert_pretrain.model import variables

_ROOT = pathlib.Path(__file__).parents[1]
_SEQ_LENGTH = 512


class Rank(NamedTuple):
    """What one rank does alone."""

    seconds_per_row: float  # forward and backward of a row of 512 tokens
    optimizer_seconds: float


class Network(NamedTuple):
    """What carries the exchange."""

    bytes_per_second: float  # of each rank in a ring, each way
    seconds_per_message: float


class Share(NamedTuple):
    """A rank's part of an update, in full rows of 512 tokens."""

    mean_rows: float
    slowest_rows: float  # of the rank that has most

    @property
    def straggler(self) -> float:
        return self.slowest_rows / self.mean_rows


class Prediction(NamedTuple):
    """Seconds of one update, and what follows from them."""

    compute: float
    waiting: float  # of the mean rank for the slowest
    exchange: float  # what of it is not overlapped
    optimizer: float
    examples_per_second: float
    efficiency: float  # examples/s of a rank, over that of a rank alone with the same share

    @property
    def update(self) -> float:
        return self.compute + self.waiting + self.exchange + self.optimizer


def gradient_bytes(num_parameters: int, half: bool) -> int:
    """What one rank contributes to an exchange; half with --allreduce_fp16."""
    return num_parameters * (2 if half else 4)


def exchange_seconds(num_bytes: int, num_ranks: int, network: Network) -> float:
    """A ring allreduce."""
    sent = 2 * (num_ranks - 1) / num_ranks * num_bytes
    return sent / network.bytes_per_second + 2 * (num_ranks - 1) * network.seconds_per_message


def share(num_examples: int, num_ranks: int, rows: str = "dealt") -> Share:
    """Rows of ranks that take num_examples each, with lengths drawn from Wikipedia's at 512 tokens.

    `padded`: one example a row of 512. `sliced`: each rank takes the examples that come next. `dealt`: the update's
    examples are dealt by size first, as bert_pretrain does.
    """
    if rows == "padded":
        return Share(num_examples, num_examples)
    histogram = json.loads((_ROOT / "tests" / "golden" / "wiki512_length_histogram.json").read_text())
    counts = np.array(histogram["counts"], np.float64)
    random, num_draws = np.random.default_rng(0), max(4, 320 // num_ranks)
    found = np.zeros([num_draws, num_ranks])
    for draw in range(num_draws):
        size = [num_ranks, num_examples]
        lengths = random.choice(np.arange(1, len(counts) + 1), size, p=counts / counts.sum())
        if rows == "dealt":
            everything = lengths.ravel()
            lengths = np.stack(
                [everything[order.records_for_rank(everything, rank, num_ranks)] for rank in range(num_ranks)]
            )
        found[draw] = lengths.sum(axis=1) / _SEQ_LENGTH
    return Share(float(found.mean()), float(found.max(axis=1).mean()))


def predict(
    rank: Rank,
    network: Network,
    num_bytes: int,
    num_ranks: int,
    num_examples: int,
    rows: Share,
    overlap_seconds: float = 0.0,
) -> Prediction:
    """An update of num_ranks x num_examples examples."""
    compute = rows.mean_rows * rank.seconds_per_row
    waiting = compute * (rows.straggler - 1.0)
    exchange = max(0.0, exchange_seconds(num_bytes, num_ranks, network) - overlap_seconds)
    alone = compute + rank.optimizer_seconds
    update = alone + waiting + exchange
    return Prediction(
        compute, waiting, exchange, rank.optimizer_seconds, num_ranks * num_examples / update, alone / update
    )


# --- Plans for machines that were not at hand; docs/scaling.md quotes them ---

# 51.3 examples/s on eight BI-V100 (DeepSparkHub's table), padded, 24 examples a rank and update: 3.74 s, of which the
# exchange takes 0.10 s and LAMB's forty passes over the parameters at 900 GB/s 0.06 s.
_BI_V100 = Rank(seconds_per_row=(3.74 - 0.10 - 0.06) / 24, optimizer_seconds=0.06)
_NETWORKS = {
    "PCIe 4": Network(24e9, 10e-6),
    "100 Gb/s": Network(11.5e9, 20e-6),
    "25 Gb/s": Network(2.9e9, 20e-6),
}
# Ranks, network, micro-batches of 6, rows, float16 sent.
_PLANS = (
    (8, "PCIe 4", 4, "padded", False),
    (8, "PCIe 4", 4, "sliced", False),
    (8, "PCIe 4", 4, "dealt", False),
    (8, "PCIe 4", 4, "dealt", True),
    (8, "PCIe 4", 1, "dealt", False),
    (8, "PCIe 4", 1, "dealt", True),
    (256, "100 Gb/s", 4, "sliced", False),
    (256, "100 Gb/s", 4, "dealt", False),
    (256, "100 Gb/s", 4, "dealt", True),
    (256, "100 Gb/s", 16, "dealt", False),
    (256, "25 Gb/s", 16, "dealt", False),
    (256, "25 Gb/s", 16, "dealt", True),
)
_HEAD = "| ranks | network | examples a rank | rows | sent as | compute | waiting | exchange | optimizer | update s "


def main() -> None:
    """Prints the predictions for BERT-large on GPUs as fast as a BI-V100."""
    num_parameters = variables.num_parameters(ModelConfig.from_json(str(_ROOT / "configs" / "model" / "large.json")))
    print(f"{_HEAD}| examples/s | efficiency |\n|{'---|' * 12}")
    for num_ranks, network, num_micro_batches, kind, half in _PLANS:
        num_examples = 6 * num_micro_batches
        rows = share(num_examples, num_ranks, kind)
        num_bytes = gradient_bytes(num_parameters, half)
        found = predict(_BI_V100, _NETWORKS[network], num_bytes, num_ranks, num_examples, rows)
        print(
            f"| {num_ranks} | {network} | {num_micro_batches} x 6 | {kind} | {'float16' if half else 'float32'} "
            f"| {found.compute:.2f} | {found.waiting:.2f} | {found.exchange:.2f} | {found.optimizer:.2f} "
            f"| {found.update:.2f} | {found.examples_per_second:.0f} | {found.efficiency:.3f} |"
        )


if __name__ == "__main__":
    main()
