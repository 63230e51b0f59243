"""Whole runs of the project's commands, as a user starts them: equal bits, resuming, several ranks, compilations."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from benchmarks import compilations, inputs
from benchmarks.gpu_check import numbers
from benchmarks.gpu_check.child import Report
from benchmarks.gpu_check.start import device_settings
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.launch import launcher
from bert_pretrain.launch.supervisor import LaunchCommand
from bert_pretrain.model import variables

_ROOT = pathlib.Path(__file__).parents[2]
_SEQ_LENGTH, _PREDICTIONS = 512, 76
_SECONDS = 240  # that one run may take


class _Runs:
    """Runs of one model in one temporary folder."""

    def __init__(self, folder: str, model: Mapping[str, Any], device_name: str, num_records: int = 1024) -> None:
        """model: the content of bert_config.json."""
        self.folder = pathlib.Path(folder)
        (self.folder / "bert_config.json").write_text(json.dumps(model))
        for name, number in (("train", num_records), ("eval", 256)):
            inputs.make_shards(f"{folder}/{name}", "wiki", _SEQ_LENGTH, _PREDICTIONS, number)
        settings = {
            **device_settings(device_name),
            **{"do_train": True, "bert_config_file": self.folder / "bert_config.json", "peak_tflops": 1},
            **{
                "input_files_dir": self.folder / "train",
                "eval_files_dir": self.folder / "eval",
                "display_loss_steps": 1,
            },
        }
        self._flags = _flags(settings)

    def flags(self, name: str, **settings: Any) -> list[str]:
        """The trainer's flags; the run writes into the folder `name`."""
        return [*self._flags, *_flags({"output_dir": self.folder / name, **settings})]

    def start(self, flags: Sequence[str], launched: Optional[LaunchCommand] = None) -> subprocess.Popen:
        """Begins a run, by itself or as the launcher would."""
        command = [*launched.arguments] if launched else [sys.executable, "-m", launcher.TRAINER, *flags]
        print("$", *command, flush=True)
        environ = {**os.environ, **(launched.environ if launched else {})}
        return subprocess.Popen(command, cwd=_ROOT, env=environ, stdin=subprocess.DEVNULL)

    def results(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name / "results.json").read_text())

    def points(self, name: str, kind: str) -> list[dict[str, Any]]:
        """The points of one kind in metrics.jsonl; none before the first."""
        path = self.folder / name / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [
            point for point in map(json.loads, (one for one in lines if one.endswith("\n"))) if point["kind"] == kind
        ]

    def tensors(self, name: str, update: int) -> dict[str, np.ndarray]:
        """What the checkpoint after an update holds."""
        reader = tf.train.load_checkpoint(str(self.folder / name / f"model.ckpt-{update}"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _flags(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()]


def _finish(*processes: subprocess.Popen) -> None:
    """Waits for all. RuntimeError where one fails."""
    codes = [process.wait(_SECONDS) for process in processes]
    if any(codes):
        raise RuntimeError(f"the runs ended with exit codes {codes}")


def _model(name: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads((_ROOT / "configs" / "model" / f"{name}.json").read_text()), **changes}


def compare_bits(report: Report, model: str, examples: int, device_name: str) -> None:
    """Three updates of two layers by two processes at once: the same bits? Again, with --deterministic."""
    with tempfile.TemporaryDirectory() as folder:
        runs = _Runs(folder, _model(model, num_hidden_layers=2), device_name)
        settings = {"train_batch_size": examples, "num_accumulation_steps": 2, "num_train_steps": 3}
        for name, flags in (("bits", {}), ("bits --deterministic", {"deterministic": True})):
            pair = [f"{name[-4:]}-{number}" for number in (1, 2)]
            begin = time.monotonic()
            _finish(*(runs.start(runs.flags(one, **settings, **flags)) for one in pair))
            first, second = (runs.tensors(one, 3) for one in pair)
            unequal = [key for key in first if not np.array_equal(first[key], second[key])]
            figures = f"{len(first) - len(unequal)} of {len(first)} variables the same bits after 3 updates"
            if unequal:
                apart = numbers.largest_difference(second, {key: first[key] for key in unequal})
                figures += f"; largest relative difference {apart.value:.2g}, {apart.variable}"
            result: dict[str, Any] = {"figures": f"{figures}; two runs at once {time.monotonic() - begin:.0f} s"}
            if flags and unequal:
                result["wrong"] = ["--deterministic does not give the same bits"]
            if flags and device_name == "cpu":
                result["not_run"] = "only a GPU shows it"
            report(name, **result)


def run_and_resume(report: Report, model: str, examples: int, updates: int, device_name: str) -> None:
    """bert_pretrain.run with evaluations and checkpoints is told to stop halfway, and continued by the same command."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        runs = _Runs(folder, _model(model), device_name)
        flags = runs.flags(
            "run", train_batch_size=examples, num_accumulation_steps=2, num_train_steps=updates, do_eval=True,
            samples_start_eval=0, samples_between_eval=examples * updates, max_eval_steps=4, eval_batch_size=examples,
            save_checkpoints_steps=max(2, updates // 4), stop_threshold=0,
        )  # fmt: skip
        first = runs.start(flags)
        end = time.monotonic() + _SECONDS
        while first.poll() is None and len(runs.points("run", "train")) < updates // 2 and time.monotonic() < end:
            time.sleep(0.05)
        begin = time.monotonic()
        first.send_signal(signal.SIGTERM)
        _finish(first)
        stop_seconds, stopped = time.monotonic() - begin, runs.results("run")
        if stopped["end"] != "interrupted":
            wrong.append(f"after SIGTERM, results.json says {stopped['end']} at update {stopped['updates']}")
        _finish(runs.start(flags))
        done = runs.results("run")
        steps = [point["update"] for point in runs.points("run", "train")]
        if steps != [*range(1, updates + 1)]:
            wrong.append(f"metrics.jsonl has the updates {steps}")
        if (done["end"], done["updates"]) != ("completed", updates):
            wrong.append(f"the run ended as {done['end']} at update {done['updates']} of {updates}")
        losses = [point["loss"] for point in runs.points("run", "train")]
        if not np.isfinite(losses).all():
            wrong.append(f"losses are not finite: {losses}")
        evaluations = runs.points("run", "eval")
    figures = (
        f"SIGTERM at update {stopped['updates']} of {updates}, ended after {stop_seconds:.1f} s, continued; loss "
        f"{losses[0]:.3f} to {losses[-1]:.3f}; {len(evaluations)} evaluations of {evaluations[-1]['seconds']:.1f} s"
    )
    report("run", wrong=wrong, figures=f"{figures}; {done['examples_per_second'] or 0:.4g} examples/s")


def compare_ranks(report: Report, model: str, examples: int, large: str, num_gpus: int, device_name: str) -> None:
    """One update of two ranks beside one rank's, in float32; and the sum of the `large` model's gradient, all ranks."""
    if not any(map(importlib.util.find_spec, ("horovod", "mpi4py"))):
        report("ranks", not_run="neither Horovod nor mpi4py is installed; bash init_tf.sh --horovod installs both")
        return
    ranks = num_gpus or 2
    with tempfile.TemporaryDirectory() as folder:
        runs = _Runs(folder, _model(model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), device_name)
        settings = {"train_batch_size": examples, "num_train_steps": 1, "amp": False, "lr_scaling": "none"}
        _finish(runs.start(runs.flags("one", num_accumulation_steps=2, **settings)))
        two = _launch(runs.flags("two", num_accumulation_steps=1, **settings), 2)
        _finish(runs.start((), two))
        losses = [runs.points(name, "train")[0]["loss"] for name in ("one", "two")]
        one, both = (runs.tensors(name, 1) for name in ("one", "two"))
        one = {name: value for name, value in one.items() if name.endswith("/LAMB")}  # the gradient
        kind = "float32" if device_name == "cpu" else "tf32"
        allowed, apart = numbers.allowed_gradient(kind), numbers.largest_difference(both, one)
        wrong = numbers.wrong_rows([
            numbers.row("loss of two ranks", abs(losses[1] - losses[0]) / losses[0], allowed),
            numbers.row(f"gradient of two ranks ({apart.variable})", apart.value, allowed),
        ])  # fmt: skip
        figures = (
            f"losses {losses[0]:.6f} and {losses[1]:.6f}, gradients {apart.value:.2g} apart, {allowed:.2g} allowed"
        )
        report("ranks", is_done=False, figures=figures, wrong=wrong)
        answer = runs.folder / "alone.json"
        module = "benchmarks.exchange", f"--model={large}", f"--alone=float32:{answer}"
        _finish(runs.start((), _launch(module[1:], ranks, module[0])))
        found = json.loads(answer.read_text())
    num_bytes = 4 * sum(map(math.prod, variables.variable_shapes(ModelConfig(**_model(large))).values()))
    bandwidth = 2.0 * (ranks - 1) / ranks * num_bytes / found["seconds"]
    how = "through the memory of the hosts" if found["why_through_hosts"] else "by NCCL"
    if not num_gpus:
        how = "on the CPU (NCCL not run)"
    elif found["why_through_hosts"]:
        wrong.append(found["why_through_hosts"])
    report(
        "ranks", wrong=wrong,
        figures=f"{figures}; {ranks} ranks sum {num_bytes / 1e9:.3g} GB {how} in {found['seconds']:.3g} s, "
        f"{bandwidth / 1e9:.3g} GB/s a rank",
    )  # fmt: skip


def _launch(flags: Sequence[str], ranks: int, module: str = launcher.TRAINER) -> LaunchCommand:
    """The command of launcher.launch_command for so many ranks of this machine; another module has only the flags."""
    environ = {name: value for name, value in os.environ.items() if name != "HOSTFILE"}
    started = launcher.launch_command(flags, {**environ, "NP": str(ranks)}, launcher.read_local_machine())
    if module == launcher.TRAINER:
        return started
    before = started.arguments[: started.arguments.index(launcher.TRAINER)]
    return started._replace(arguments=[*before, module, *flags])


def count_compilations(report: Report, updates: int) -> None:
    """Trains by the command line with XLA's kernels; RuntimeError where XLA left no programs to count."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = compilations.measure(pathlib.Path(folder), updates, 6, 1, 512)
    if not set(kernels) - set(compilations.OF_OPTIMIZER):
        raise RuntimeError(f"XLA_FLAGS=--xla_dump_to left no program of a kernel; found {sorted(kernels)}")
    total = sum(sum(counts) for counts in kernels.values())
    report(
        "compilations", kernels=kernels,
        figures=f"{total} of {len(kernels)} kernels in {updates} updates; at most {compilations.most(kernels)} of a "
        f"program whose shapes depend on the data",
    )  # fmt: skip
