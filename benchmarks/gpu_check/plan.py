"""Which parts there are, in order of importance, with their sizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Callable, Optional

from benchmarks.gpu_check.child import table
from benchmarks.gpu_check.runner import FAILED, OK, TOO_LARGE, Part, Runner

START_SECONDS = 120.0  # a GPU machine answers in a third of that; CUDA and a cold disk may need more
_GIB = 2**30
_BYTES_A_ROW = 1.5 * _GIB  # that BERT-large may need for a row of 512 tokens, with a margin


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of all parts: models are files of configs/model, examples those of a micro-batch."""

    device: str = "auto"
    is_gpu: bool = True
    num_gpus: int = 1
    dtype: str = "bfloat16"  # of a run's products
    speed_model: str = "large"
    rows: int = 64  # of 512 tokens, and twice as many; Wikipedia's examples have half of that, so twice the examples
    many: int = 8  # micro-batches of the longer updates
    updates: int = 6  # that are timed
    check_model: str = "base"
    check_examples: int = 4
    small_model: str = "base"  # of whole runs
    small_examples: int = 32
    run_updates: int = 60
    short_model: str = "base"  # with records of 128 tokens
    short_rows: int = 256
    compilation_updates: int = 100


_OF_CPU = Sizes(
    "cpu", False, 0, "float32", "tiny", 2, 3, 3, "tiny", 2, "tiny", 4, 12, "tiny", 8, 12
)  # fmt: skip


def choose_sizes(start: dict[str, Any]) -> Sizes:
    """By what the part `start` found: its memory (None: not known, 8 GiB are assumed), its GPUs, its dtype."""
    if not start["is_gpu"]:
        return _OF_CPU
    fits = (start.get("memory_bytes") or 8 * _GIB) / _BYTES_A_ROW
    rows = 2 ** max(0, min(6, math.floor(math.log2(max(1.0, fits)))))
    small = max(1, rows // 2)
    return Sizes(
        num_gpus=start["num_gpus"], dtype=start["dtype"], rows=rows, small_examples=small,
        short_rows=4 * rows,
    )  # fmt: skip


def run_all(runner: Runner, device: str, wanted: Optional[Sequence[str]] = None) -> None:
    """Runs the steps. Nothing follows a start that fails. wanted: of STEPS; None: all."""
    (start,) = runner.run(["start"], "start", START_SECONDS, device_name=device)
    if not start.result.get("is_usable"):
        return
    sizes = choose_sizes(start.result)
    for name, step in STEPS.items():
        if wanted is None or name in wanted:
            step(runner, sizes)


def _graph(runner: Runner, sizes: Sizes) -> None:
    """Also the speed of the smaller micro-batch; where memory is too small for that, of half of it."""
    rows = sizes.rows
    while not _updates(runner, ["warm-up", "placement"], sizes, rows, 1, 240.0) and rows > 1:
        rows //= 2


def _speed(runner: Runner, sizes: Sizes) -> None:
    first = _speeds(runner)
    rows = first[0].result["wanted_rows"] if first else sizes.rows
    for number, micro_batches in ((rows, 1), (rows, sizes.many), (2 * rows, 1), (2 * rows, sizes.many)):
        if not first or (number, micro_batches) != (rows, 1):
            _updates(runner, [], sizes, number, micro_batches, 120.0)


def _updates(
    runner: Runner, before: list[str], sizes: Sizes, rows: int, micro_batches: int, limit: float, is_short: bool = False
) -> bool:
    """Whether memory was enough."""
    model, length = (sizes.short_model, 128) if is_short else (sizes.speed_model, 512)
    name = f"{_name(model, rows, micro_batches)}{f' x {length}' if is_short else ''}"
    parts = runner.run(
        [*before, name], "updates", limit, name=name, model=model, seq_length=length, rows=rows,
        examples=rows if is_short else 2 * rows, micro_batches=micro_batches, updates=sizes.updates,
        device_name=sizes.device, is_first=bool(before), may_be_too_large=True,
    )  # fmt: skip
    return parts[-1].reason != TOO_LARGE


def _name(model: str, rows: int, micro_batches: int) -> str:
    return f"speed of {model}, {micro_batches} x {rows} rows"


def _speeds(runner: Runner) -> list[Part]:
    return [part for part in runner.parts if "rows_per_second" in part.result]


def _profile(runner: Runner, sizes: Sizes) -> None:
    """From two updates of the same micro-batches, what one of these takes, and what the rest of an update."""
    found = {part.result["micro_batches"]: part.result for part in _speeds(runner)[::-1]}
    few, many = found.get(1), found.get(sizes.many)
    if few is None or many is None or few["wanted_rows"] != many["wanted_rows"]:
        runner.add(Part("profile", reason="it needs updates of one and of many micro-batches"))
        return
    row_seconds = (many["update_seconds"] - few["update_seconds"]) / (many["rows"] - few["rows"])
    rest = few["update_seconds"] - row_seconds * few["rows"]
    launches = [one["trace"]["launches"] for one in (few, many)]
    each = (launches[1] - launches[0]) / (sizes.many - 1)
    trace = many["trace"]
    what = "kernel launches" if trace["is_gpu"] else "operations"
    figures = (
        f"a micro-batch {row_seconds * few['rows'] * 1e3:.4g} ms and {each:,.0f} {what}, the rest of an update "
        f"{rest * 1e3:.4g} ms and {launches[0] - each:,.0f}"
    )
    part = Part("profile", OK, result={"figures": figures})
    if sizes.is_gpu and not trace["is_gpu"]:
        part.state, part.reason = FAILED, "the trace has no kernels; CUPTI is missing, or may not be used by this user"
    if not sizes.is_gpu:
        part.result["figures"] += "; kernels of a GPU: not run"
    part.result["table"] = table(
        f"profile: the longest of {trace['micros'] / 1e3:.4g} ms of {what}, {sizes.many} micro-batches",
        ["share", "ms", "launches", "name", "of"],
        [
            [f"{micros / max(1, trace['micros']):.1%}", f"{micros / 1e3:.2f}", number, name[:60], operation[-40:]]
            for name, operation, number, micros in trace["kernels"]
        ],
    )
    runner.add(part)


def _numbers(runner: Runner, sizes: Sizes) -> None:
    dtypes = ["float32", "tf32", sizes.dtype] if sizes.is_gpu else ["float32", "bfloat16"]
    _compare(runner, "numbers", sizes, [*dict.fromkeys(dtypes)])


def _float16(runner: Runner, sizes: Sizes) -> None:
    if sizes.dtype != "float16":  # else it is among the numbers
        _compare(runner, "float16", sizes, ["float16"])


def _compare(runner: Runner, name: str, sizes: Sizes, dtypes: list[str]) -> None:
    model, examples = sizes.check_model, sizes.check_examples
    runner.run(
        [name], "numbers", 120.0, name=name, model=model, examples=examples, dtypes=dtypes, device_name=sizes.device
    )


def _bits(runner: Runner, sizes: Sizes) -> None:
    names = ["bits", "bits --deterministic"]
    model, examples = sizes.speed_model, sizes.check_examples
    runner.run(names, "bits", 120.0, model=model, examples=examples, device_name=sizes.device)


def _run(runner: Runner, sizes: Sizes) -> None:
    runner.run(
        ["run"], "run", 150.0, model=sizes.small_model, examples=sizes.small_examples, updates=sizes.run_updates,
        device_name=sizes.device,
    )  # fmt: skip


def _ranks(runner: Runner, sizes: Sizes) -> None:
    if sizes.num_gpus == 1:
        runner.add(Part("ranks", reason="one GPU"))
        return
    runner.run(
        ["ranks"], "ranks", 150.0, model=sizes.small_model, examples=sizes.check_examples, large=sizes.speed_model,
        num_gpus=sizes.num_gpus, device_name=sizes.device,
    )  # fmt: skip


def _short(runner: Runner, sizes: Sizes) -> None:
    _updates(runner, [], sizes, sizes.short_rows, 1, 120.0, is_short=True)


def _compilations(runner: Runner, sizes: Sizes) -> None:
    runner.run(["compilations"], "compilations", 90.0, updates=sizes.compilation_updates)


STEPS: dict[str, Callable[[Runner, Sizes], None]] = {
    "graph": _graph,
    "numbers": _numbers,
    "speed": _speed,
    "profile": _profile,
    "bits": _bits,
    "run": _run,
    "ranks": _ranks,
    "float16": _float16,
    "short": _short,
    "compilations": _compilations,
}
