"""Where the time of our update goes: `python -m benchmarks.operations results/benchmarks/ours.settings.json`.

benchmarks.training leaves that file. TensorFlow's own trace gives the seconds of each operation. The ceiling is the
utilization that the update would reach if only its linear layers, heads and attention took time.
"""

from __future__ import annotations

import argparse
import collections
import statistics
from typing import NamedTuple

import tensorflow as tf

from benchmarks.ours import Ours
from benchmarks.settings import Settings

# Kind -> its operations.
_KINDS = {
    "linear layers and heads": ("MatMul",),
    "attention": ("BertPretrainAttention", "BertPretrainAttentionGrad"),
    "optimizer": ("BertPretrainLamb", "BertPretrainAdamw"),
    "norms, residuals, dropout": ("BertPretrainAddAndNorm", "BertPretrainAddAndNormGrad", "BertPretrainDropout"),
    "GELU": ("BertPretrainGelu", "BertPretrainGeluGrad"),
    "biases": ("BiasAdd", "BiasAddGrad"),
    "gradient's norm": ("L2Loss",),
    "casts": ("Cast",),
    "gathers and scatters": ("GatherV2", "ResourceGather", "UnsortedSegmentSum", "Gather"),
    "sums and copies": ("AddN", "AddV2", "ConcatV2", "Slice", "Split", "SplitV", "Mul"),
    "softmax and losses": ("LogSoftmax", "Softmax", "SparseSoftmaxCrossEntropyWithLogits", "Exp", "Sum", "Sub"),
}
_ELSE = "everything else"
_PRODUCTS = ("linear layers and heads", "attention")


def seconds_by_kind(metadata: tf.compat.v1.RunMetadata) -> dict[str, float]:
    """Seconds of the operations of a traced session.run, by kind; those at the same time count twice."""
    kind_of = {operation: kind for kind, operations in _KINDS.items() for operation in operations}
    seconds: dict[str, float] = collections.defaultdict(float)
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            operation = node.timeline_label.partition(" = ")[2].partition("(")[0].replace("_Mkl", "").lstrip("_")
            seconds[kind_of.get(operation, _ELSE)] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1e6
    return seconds


class Measured(NamedTuple):
    """Medians over updates with the same records."""

    kinds: dict[str, float]  # seconds of operations in a traced update, the most first
    update: float  # seconds of an untraced one
    useful: float  # seconds that its useful FLOPs take at the machine's rate
    rate: float  # that rate, FLOP/s


def measure(settings: Settings, num_updates: int) -> Measured:
    """Traces some updates, each beside an untraced one."""
    ours, traces, steps = Ours(settings), [], []
    for _ in range(num_updates + 1):
        ours.begin_turn()
        steps.append(ours.step())
        ours.begin_turn()
        traces.append(seconds_by_kind(ours.trace()))
    del steps[0], traces[0]  # the first update prepares the session
    rate = ours.matmul_flops()
    kinds = {kind: statistics.median(trace.get(kind, 0.0) for trace in traces) for kind in (*_KINDS, _ELSE)}
    kinds = dict(sorted(kinds.items(), key=lambda pair: -pair[1]))
    return Measured(kinds, statistics.median(step.seconds for step in steps), steps[0].useful_flops / rate, rate)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", help="The settings file of one of our workers.")
    parser.add_argument("--updates", type=int, default=5, help="Updates that are traced.")
    arguments = parser.parse_args()
    measured = measure(Settings.read(arguments.settings), arguments.updates)
    total, products = sum(measured.kinds.values()), sum(measured.kinds[kind] for kind in _PRODUCTS)
    print("| operations | s | share |\n|---|---|---|")
    for kind, seconds in measured.kinds.items():
        print(f"| {kind} | {seconds:.3f} | {seconds / total:.1%} |")
    print(f"\nan update without the trace: {measured.update:.3f} s; products: {measured.rate / 1e9:.0f} GFLOP/s")
    print(f"utilization {measured.useful / measured.update:.3f}; ceiling {measured.useful / products:.3f}")


if __name__ == "__main__":
    main()
