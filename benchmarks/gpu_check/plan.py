"""Which parts there are, in order of importance."""

from __future__ import annotations

import functools
import json
import pathlib
import re
import sys

from benchmarks.gpu_check import sizes as sizes_by_device
from benchmarks.gpu_check.runner import FAILED, LEFT_OUT, OK, Part, Runner
from benchmarks.gpu_check.sizes import Sizes
from bert_pretrain.system import files

_OUT_OF_MEMORY = re.compile(r"ResourceExhausted|\bOOM\b|out of memory|OUT_OF_MEMORY", re.IGNORECASE)
_FIGURES = "training.json"  # of benchmarks.training
# Part -> its title and the most of the time that it may take.
_CHECKS = {
    "logits": ("logits in float32 beside the CPU's", 0.25),
    "updates": ("one update in each dtype beside the CPU's in float32", 0.3),
    "compilations": ("XLA's compilations while a tiny model trains by the command line", 0.3),
}


def describe_machine(runner: Runner, directory: pathlib.Path) -> Part:
    """The first part: its result says whether there is a GPU."""
    part = Part("machine", "devices, dtypes and versions")
    _run_child(runner, directory, part, 0.2)
    return part


def run_all(runner: Runner, directory: pathlib.Path, machine: dict, sizes: Sizes) -> None:
    """All other parts. machine: the first part's result, or as much of it as there is."""
    path = directory / "sizes.json"
    sizes.write(str(path))
    for name, (title, share) in _CHECKS.items():
        _run_child(runner, directory, Part(name, title), share, str(path))
    dtypes = sorted(machine.get("dtypes", ["float32"]), key=lambda dtype: dtype != machine.get("auto"))
    for dtype in dtypes:  # what a run takes by itself comes first, for all models
        for model in sizes.speed:
            _measure_speed(runner, directory, model, dtype, sizes)


def choose_sizes(machine: dict, minutes: float) -> Sizes:
    return sizes_by_device.choose(machine.get("is_gpu", False), machine.get("gpu_memory_bytes"), minutes)


def _run_child(runner: Runner, directory: pathlib.Path, part: Part, share: float, *sizes: str) -> None:
    result = directory / f"{part.name}.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check.child", part.name, str(result), *sizes]
    runner.run(part, command, lambda: _read(result), share)


def _measure_speed(runner: Runner, directory: pathlib.Path, model: str, dtype: str, sizes: Sizes) -> None:
    """One part of benchmarks.training; where memory is too small, again with half the examples."""
    examples = sizes.speed[model]
    while True:
        part = Part(f"speed-{model}-{dtype}-{examples}", f"speed of {model} in {dtype}, {examples} examples")
        folder = directory / part.name
        command, read = _training(model, dtype, examples, sizes, folder), functools.partial(_read, folder / _FIGURES)
        runner.run(part, command, read, 0.5, _least_seconds(runner, sizes))
        if part.state != FAILED or examples == 1 or not _OUT_OF_MEMORY.search(runner.log(part.name).read_text()):
            return
        part.state, part.reason = LEFT_OUT, f"not enough memory for {examples} examples; the next has half of them"
        examples //= 2


def _least_seconds(runner: Runner, sizes: Sizes) -> float:
    """What the longest part of this kind took; before the first, a guess."""
    seconds = [part.seconds for part in runner.parts if part.name.startswith("speed-") and part.state == OK]
    return max(seconds, default=60.0 if sizes.is_gpu else 20.0)


def _training(model: str, dtype: str, examples: int, sizes: Sizes, folder: pathlib.Path) -> list[str]:
    flags = {
        "workers": f"ours_{dtype}",
        "models": model,
        "lengths": "wiki,full",
        "batch_size": examples,
        "num_threads": files.num_cores(),
        "rounds": sizes.rounds,
        "own_steps_per_round": sizes.updates,
        "num_records": sizes.records,
        "output_dir": folder,
    }
    given = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "benchmarks.training", "--no_plot", *given]


def _read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}
