"""Folders of runs as training leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional


def write_run(folder: Path, updates: int = 40, batch: int = 32, results: bool = True, **changes: Any) -> Path:
    """A run of `updates` updates with an evaluation every ten. changes: settings of the part optim."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [point for update in range(updates + 1) for point in points(update, batch)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(description(updates, batch, **changes)))
    if results:
        (folder / "results.json").write_text(json.dumps(end(updates, batch)))
    return folder


def points(update: int, batch: int) -> list[dict[str, Any]]:
    """The records of one update."""
    accuracies = {"masked_lm_accuracy": update / 100, "next_sentence_accuracy": 0.5 + update / 200}
    losses = {"masked_lm_loss": 9 - update / 10, "next_sentence_loss": 0.7 - update / 1000}
    common = {"update": update, "examples": update * batch, "time": 1.79e9 + update, **accuracies, **losses}
    train = {"kind": "train", **common, "loss": 9.7 - update / 10, "learning_rate": 1e-3, "gradient_norm": 2.0}
    train.update(loss_scale=2.0 ** (update % 3), examples_per_second=60.0 + update, tokens_per_second=None)
    train.update(step_seconds_median=0.5, step_seconds_p95=0.7, padding_share=0.01, input_wait_share=0.0)
    evaluation = [{"kind": "eval", **common}] if update % 10 == 0 else []
    return [*([{**train, "peak_memory_bytes": 2**30}] if update else []), *evaluation]


def description(updates: int, batch: int, mlperf: bool = False, **optim: Any) -> dict[str, Any]:
    """The content of run.json."""
    start = {"time": 1.79e9, "ranks": 1, "host": "host", "pid": 7}
    return {
        "settings": {
            "run": {"do_train": True},
            "data": {"train_batch_size": batch},
            "optim": {"num_train_steps": updates, "learning_rate": 1e-3, **optim},
            "mlperf": {"mlperf": mlperf},
        },
        "model": {"num_hidden_layers": 2, "hidden_size": 256},
        "data": {"train": {"records": 91387, "fingerprint": "93b6", "paths": ["/data/a.tfrecord"]}},
        "versions": {"tensorflow": "2.21.0", "horovod": None},
        "ranks": 1,
        "device": "cpu",
        "command": ["run.py", "--do_train"],
        "starts": [
            {**start, "update": 0, "changed": {}},
            {**start, "update": updates // 2, "changed": {"--clip_norm": [1.0, 0.5]}},
        ],
    }


def end(updates: int, batch: int, accuracy: Optional[float] = 0.4) -> dict[str, Any]:
    """The content of results.json."""
    rates = {"examples_per_second": 61.5, "updates_per_second": 1.921875, "tokens_per_second": 6789.4}
    sizes = {"ranks": 1, "device": "cpu", "updates": updates, "examples": updates * batch, "peak_memory_bytes": 2**30}
    times = {"step_seconds": {"median": 0.5, "p95": 0.7}, "checkpoint_pause_seconds": {"median": None, "max": None}}
    return {**sizes, **rates, **times, "masked_lm_accuracy": accuracy, "target_reached": False, "end": "completed"}
