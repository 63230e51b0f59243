"""The table of TensorFlow's GPU kernels in tests/golden/gpu_kernels/, by release.

    pip install tensorflow==2.21.0
    python tests/golden/gpu_kernels.py TABLE [OPERATION ...] > 2.21.0.json

A build of TensorFlow for GPUs registers its kernels on any machine, also without a GPU. The new table has the
operations of TABLE, one of the tables that are there, and those that are named; tests/train/test_gpu_graph.py names
what is missing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

DEVICES = ("GPU", "XLA_GPU_JIT")
# The dtypes of the graphs. What a table says of others is left out, so that it stays small.
DTYPES = (
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "string",
    "resource",
)


def list_kernels(operation: str) -> dict[str, list[dict[str, Any]]]:
    """Device -> its kernels: the allowed dtypes of each attribute, the arguments in host memory, the priority.

    Kernels that differ in the dtypes of their one attribute alone are one entry.
    """
    from tensorflow.python.framework import dtypes, kernels

    found: dict[str, list[dict[str, Any]]] = {}
    for kernel in kernels.get_registered_kernels_for_op(operation).kernel:
        device = "GPU" if kernel.device_type == "DEFAULT" else kernel.device_type
        if device not in DEVICES or kernel.label:
            continue
        types = {
            one.name: sorted({dtypes.as_dtype(number).name for number in one.allowed_values.list.type} & set(DTYPES))
            for one in kernel.constraint
        }
        entry = {"types": types, "host": sorted(kernel.host_memory_arg), "priority": kernel.priority}
        entries = found.setdefault(device, [])
        like = [
            one
            for one in entries
            if {**one, "types": 0} == {**entry, "types": 0} and one["types"].keys() == types.keys()
        ]
        if len(types) == 1 and like:
            (name,) = types
            like[0]["types"][name] = sorted({*like[0]["types"][name], *types[name]})
        elif all(types.values()) and entry not in entries:
            entries.append(entry)
    return found


def main(path: str, more: Sequence[str]) -> None:
    """Prints the table for the operations of another one and more."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    # XLA registers its kernels when it compiles the first program.
    tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(1.0))
    with open(path) as file:
        table = {name: list_kernels(name) for name in sorted({*json.load(file), *more})}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(kernels, sort_keys=True)}" for name, kernels in table.items())
    print(f"{{\n{lines}\n}}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
