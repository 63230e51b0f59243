"""How often XLA compiles while a model trains: `python -m benchmarks.compilations [--updates=1000]`.

A model of one layer x 16 trains on Wikipedia's lengths with XLA's kernels, on a GPU or a CPU, and XLA writes a file for
each program that it compiles. The number of compilations does not depend on the size of the model's layers.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from benchmarks import inputs

_ROOT = pathlib.Path(__file__).parents[1]
_MODEL = {
    "vocab_size": inputs.VOCAB_SIZE, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 512,
}  # fmt: skip
OF_OPTIMIZER = ("direction", "step")  # programs with a shape for each kind of variable, whatever the data are


def environment(directory: pathlib.Path) -> dict[str, str]:
    """Variables with which XLA leaves a file in the directory for each program that it compiles."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={directory} --xla_dump_hlo_as_text"
    return {**os.environ, "XLA_FLAGS": flags.strip()}


def count(directory: pathlib.Path) -> dict[str, list[int]]:
    """By the name of a kernel: the compilations of each of its programs, which differ in ranks, dtypes and numbers."""
    names = (re.match(r"module_\d+\.(.*?)\.\d+\.before_opt", path.name) for path in directory.glob("module_*"))
    programs = collections.Counter(name[1] for name in names if name)
    kernels = collections.defaultdict(list)
    for name, number in sorted(programs.items()):
        kernels[re.sub(r"^a_inference_|_\d+_*$", "", name).strip("_")].append(number)
    return dict(kernels)


def most(kernels: dict[str, list[int]]) -> int:
    """The most compilations of a program whose shapes depend on the micro-batch."""
    return max(max(numbers) for name, numbers in kernels.items() if name not in OF_OPTIMIZER)


def measure(
    folder: pathlib.Path, updates: int, batch_size: int, accumulation: int, seq_length: int
) -> dict[str, list[int]]:
    """Trains in a process of its own; returns compilations as `count` does. RuntimeError with the run's last lines."""
    model, dump = folder / "bert_config.json", folder / "dump"
    model.write_text(json.dumps({**_MODEL, "max_position_embeddings": seq_length}))
    inputs.make_shards(str(folder / "shards"), "wiki", seq_length, max(1, seq_length * 76 // 512), 8192)
    flags = {
        "input_files_dir": folder / "shards", "bert_config_file": model, "output_dir": folder / "run",
        "train_batch_size": batch_size, "num_accumulation_steps": accumulation, "num_train_steps": updates,
        "save_checkpoints_steps": updates, "display_loss_steps": 100, "peak_tflops": 1,
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "bert_pretrain.run",
        "--do_train",
        "--nodo_eval",
        "--nonative_kernels",
        "--use_xla",
    ]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(command, env=environment(dump), cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the run ended with {done.returncode}: {done.stderr[-2000:]}")
    return count(dump)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=6)
    parser.add_argument("--num_accumulation_steps", type=int, default=1)
    parser.add_argument("--seq_length", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kernels = measure(pathlib.Path(folder), *vars(arguments).values())
    print("| kernel | programs | compilations of each |\n|---|---|---|")
    for name, numbers in kernels.items():
        print(f"| {name} | {len(numbers)} | {', '.join(map(str, numbers))} |")
    print(f"\nat most {most(kernels)} of a program whose shapes depend on the data")


if __name__ == "__main__":
    main()
