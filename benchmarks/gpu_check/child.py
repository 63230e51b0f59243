"""One part of the check in a process of its own: `python -m benchmarks.gpu_check.child PART RESULT.json [SIZES.json]`.

A part writes its result after each of its steps, so that a crash in one step leaves the others.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
from typing import Callable

import numpy as np
import tensorflow as tf

from benchmarks import compilations
from benchmarks.gpu_check import comparison, machine, networks
from benchmarks.gpu_check.sizes import Sizes

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "model"
_LOGITS_ALLOWED = 1e-4  # as between this project and Google's code, tests/model/test_against_google.py

Report = Callable[[dict], None]


def compare_logits(report: Report, sizes: Sizes) -> None:
    """float32 logits of the device against those of the CPU."""
    case = _case(sizes)
    expected = networks.logits(case, networks.reference())
    rows = []
    tf.config.experimental.enable_tensor_float_32_execution(False)
    found = networks.logits(case, networks.checked("float32"))
    for name, one, other in zip(("masked tokens", "next sentence"), found, expected):
        difference = np.abs(one - other)
        where = f"of {other.size:,} logits with a standard deviation of {other.std():.3f}"
        value = float(difference.max()) if np.isfinite(difference).all() else float("inf")
        rows.append(comparison.row(name, value, _LOGITS_ALLOWED, where))
        report({"rows": rows})


def compare_updates(report: Report, sizes: Sizes) -> None:
    """One update in each dtype against a float32 update of the CPU. tf32: float32 as Ampere and later compute it."""
    case = _case(sizes)
    expected = networks.update(case, networks.reference())
    rows = []
    for name in ("float32", "tf32", "float16", "bfloat16"):
        if name == "tf32" and not sizes.is_gpu:
            continue
        tf.config.experimental.enable_tensor_float_32_execution(name == "tf32")
        try:
            rows += _update_rows(
                name, networks.update(case, networks.checked(name.replace("tf32", "float32"))), expected
            )
        except (tf.errors.OpError, RuntimeError, ValueError, TypeError) as error:
            rows.append({"name": name, "ok": False, "error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
        report({"rows": rows, "loss": expected.loss})


def _update_rows(name: str, found: networks.Update, expected: networks.Update) -> list[dict]:
    gradient = comparison.largest_difference(found.moments, expected.moments)
    step = comparison.largest_difference(found.steps, expected.steps)
    loss = abs(found.loss - expected.loss) / expected.loss
    scale = f"loss scale {found.loss_scale:g}, {found.num_skipped} skipped" if name == "float16" else ""
    return [
        comparison.row(f"{name}: loss", loss, comparison.allowed_gradient(name), scale),
        comparison.row(f"{name}: gradient", gradient.value, comparison.allowed_gradient(name), gradient.variable),
        comparison.row(f"{name}: weights' step", step.value, comparison.allowed_step(name), step.variable),
    ]


def count_compilations(report: Report, sizes: Sizes) -> None:
    """Trains by the command line with XLA's kernels; RuntimeError where XLA left no programs to count."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = compilations.measure(pathlib.Path(folder), sizes.compilation_updates, 6, 1, 512)
    if not set(kernels) - set(compilations.OF_OPTIMIZER):
        raise RuntimeError(f"XLA_FLAGS=--xla_dump_to left no program of a kernel; found {sorted(kernels)}")
    report({"kernels": kernels, "most": compilations.most(kernels), "updates": sizes.compilation_updates})


def _case(sizes: Sizes) -> networks.Case:
    with tempfile.TemporaryDirectory() as folder:
        return networks.make_case(str(_CONFIGS / f"{sizes.check_model}.json"), sizes.check_examples, folder)


PARTS = {
    "machine": machine.describe,
    "logits": compare_logits,
    "updates": compare_updates,
    "compilations": count_compilations,
}


def main() -> None:
    name, result, *sizes = sys.argv[1:]

    def report(values: dict) -> None:
        with open(f"{result}.partial", "w", encoding="utf-8") as file:
            json.dump(values, file)
        os.replace(f"{result}.partial", result)

    PARTS[name](report, *map(Sizes.read, sizes))


if __name__ == "__main__":
    main()
