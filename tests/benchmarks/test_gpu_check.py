"""The GPU check's rules: what is within rounding, what becomes of parts that fail, what the report says."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_check import plan, sizes
from benchmarks.gpu_check.comparison import (
    UNIT_ROUNDOFF,
    allowed_gradient,
    allowed_step,
    largest_difference,
    relative_difference,
    row,
)
from benchmarks.gpu_check.report import CPU_NOTE, render, verdict
from benchmarks.gpu_check.runner import FAILED, LEFT_OUT, OK, Part, Runner, describe_failure

ROOT = Path(__file__).parents[2]
VALUES = np.random.default_rng(0).normal(size=[300, 40]).astype(np.float32)


def test_rounding_is_within_what_is_allowed_and_a_wrong_share_is_not() -> None:
    half = VALUES.astype(np.float16).astype(np.float32)
    assert 0.1 * UNIT_ROUNDOFF["float16"] < relative_difference(half, VALUES) < UNIT_ROUNDOFF["float16"]
    for dtype in UNIT_ROUNDOFF:
        assert allowed_gradient(dtype) < allowed_step(dtype) < 1.0
    assert relative_difference(VALUES * 1.2, VALUES) > max(map(allowed_gradient, UNIT_ROUNDOFF))
    assert relative_difference(np.zeros([3]), np.zeros([3])) == 0.0
    assert relative_difference(np.ones([3]), np.zeros([3])) == math.inf


def test_flipped_signs_differ_as_the_bound_of_a_step_assumes() -> None:
    error = 0.05
    noise = np.random.default_rng(1).normal(size=VALUES.shape) * error
    found = relative_difference(np.sign(VALUES + noise), np.sign(VALUES))
    assert found == pytest.approx(2.0 * math.sqrt(error / math.pi), rel=0.2)


def test_the_largest_difference_leaves_out_what_has_no_gradient_and_finds_what_is_not_finite() -> None:
    expected = {"a": VALUES, "b": VALUES, "layer_0/attention/self/key/bias": VALUES}
    found = {**expected, "b": VALUES * 1.5, "layer_0/attention/self/key/bias": -VALUES}
    assert largest_difference(found, expected) == (pytest.approx(0.5), "b")
    difference = largest_difference({**found, "a": VALUES * np.nan}, expected)
    assert difference.variable == "a"
    assert not row("float16: gradient", difference.value, 1.0)["ok"]


def run(tmp_path: Path, code: str, minutes: float = 1.0, least_seconds: float = 0.5, **result: object) -> Part:
    part = Part("part", "a part")
    runner = Runner(tmp_path, minutes, lambda line: None)
    runner.run(part, [sys.executable, "-c", code], lambda: result, share=0.9, least_seconds=least_seconds)
    assert runner.parts == [part]
    return part


@pytest.mark.parametrize(
    ("code", "minutes", "state", "reason"),
    [
        ("print('all is well')", 1.0, OK, ""),
        ("raise ValueError('no kernel')", 1.0, FAILED, "exit code 1: ValueError: no kernel"),
        ("import os; os.abort()", 1.0, FAILED, "SIGABRT: nothing was printed"),
        ("import time; print('Error'); time.sleep(60)", 0.1, FAILED, "not finished in 1 s, its share of --minutes"),
    ],
)
def test_a_part_that_ends_badly_is_described_in_one_line(tmp_path, code, minutes, state, reason) -> None:
    part = run(tmp_path, code, minutes)
    assert (part.state, part.reason) == (state, reason)


def test_a_part_without_time_is_left_out(tmp_path: Path) -> None:
    part = run(tmp_path, "raise ValueError", minutes=0.1, least_seconds=20.0)
    assert (part.state, part.reason) == (LEFT_OUT, "1 s left of --minutes, 20 s needed")


def test_a_comparison_that_is_not_within_rounding_fails_its_part(tmp_path: Path) -> None:
    rows = [
        row("float32: loss", 0.0, 1e-6),
        row("float32: gradient", 0.5, 1e-6),
        {"name": "x", "ok": False, "error": "e"},
    ]
    part = run(tmp_path, "", rows=rows)
    assert part.state == FAILED
    assert part.reason == "float32: gradient: 0.5, 1e-06 allowed; x: e"


def test_the_last_line_that_names_an_error_is_the_reason() -> None:
    lines = "RuntimeError: worker ours died", "tensorflow.ResourceExhaustedError: OOM when allocating", "\t [[node x]]"
    log = "\n".join(lines)
    assert describe_failure(1, log) == "exit code 1: tensorflow.ResourceExhaustedError: OOM when allocating"
    assert describe_failure(-9, "loading\n") == "SIGKILL: loading"


def test_a_gpu_without_memory_for_a_batch_is_tried_with_half_of_it(tmp_path: Path, monkeypatch) -> None:
    code = "import sys; sys.exit('tensorflow.ResourceExhaustedError: OOM' if {} > 8 else 0)"
    monkeypatch.setattr(plan, "_training", lambda m, d, examples, *rest: [sys.executable, "-c", code.format(examples)])
    runner = Runner(tmp_path, 10, lambda line: None)
    chosen = dataclasses.replace(sizes.choose(True, 16 * 2**30, 10), speed={"base-512": 16})
    plan._measure_speed(runner, tmp_path, "base-512", "float16", chosen)
    assert [(part.name, part.state) for part in runner.parts] == [
        ("speed-base-512-float16-16", LEFT_OUT),
        ("speed-base-512-float16-8", OK),
    ]


def test_sizes_follow_the_device_its_memory_and_the_time(tmp_path: Path) -> None:
    assert sizes.choose(True, 16 * 2**30, 10).speed == {"base-512": 16, "base-128": 64}
    assert sizes.choose(True, 80 * 2**30, 10).speed["base-512"] == 64
    assert sizes.choose(True, None, 10).speed["base-512"] == 8
    small = sizes.choose(False, None, 3)
    assert (small.check_model, small.rounds) == ("mini", 1)
    small.write(str(tmp_path / "sizes.json"))
    assert sizes.Sizes.read(str(tmp_path / "sizes.json")) == small


def canned(is_gpu: bool) -> dict:
    machine = {
        "is_gpu": is_gpu, "commit": "0123456789ab", "dtypes": ["float32", "float16"], "auto": "float16",
        "not_dtypes": {"bfloat16": "the GPU has compute capability 7.0"}, "gpus": [{"device_name": "Tesla V100"}],
        "versions": {"tensorflow": "2.21.0"}, "environment": {}, "tools": {"nvidia-smi": "Driver Version: 550"},
    }  # fmt: skip
    turn = {"matmul_flops": 9e13}
    speed = {
        "worker": "ours_float16", "examples_per_second": 100.0, "examples_per_second_least": 90.0,
        "examples_per_second_most": 110.0, "utilization": 0.5, "step_seconds_median": 0.16, "mean_loss": 10.5,
        "device_memory_bytes": 2**33, "peak_memory_bytes": 2**31, "startup_seconds": 20.0, "warm_up_seconds": [10.0],
        "rounds": [turn, turn],
    }  # fmt: skip
    comparisons = [{"model": "base-512", "lengths": "wiki", "results": [speed]}]
    parts = [
        Part("machine", "devices", OK, "", 5.0, machine),
        Part("logits", "logits", OK, "", 9.0, {"rows": [row("masked tokens", 1e-6, 1e-4, "of 9 logits")]}),
        Part("updates", "updates", FAILED, "float16: no kernel", 9.0,
             {"rows": [{"name": "float16", "ok": False, "error": "no kernel"}]}),
        Part("compilations", "compilations", OK, "", 30.0,
             {"kernels": {"gelu": [6, 6], "step": [20]}, "most": 6, "updates": 300}),
        Part("speed-base-512-float16-16", "speed", OK, "", 60.0,
             {"settings": {"batch_size": 16}, "comparisons": comparisons}),
        Part("speed-base-128-float16-64", "speed of base-128", LEFT_OUT, "9 s left of --minutes, 60 s needed"),
    ]  # fmt: skip
    return {
        "note": "",
        "is_gpu": is_gpu,
        "device": "Tesla V100",
        "date": "2026-11-27",
        "commit": "0123456789ab",
        "minutes": 10.0,
        "seconds": 113.0,
        "sizes": "base",
        "parts": [dataclasses.asdict(part) for part in parts],
    }


def test_the_report_has_the_figures_the_failures_and_what_was_left_out() -> None:
    report = json.loads(json.dumps(canned(is_gpu=True)))
    page = render(report)
    assert verdict(report) == "6 parts: 4 ok, 1 failed, 1 left out"
    assert CPU_NOTE not in page
    for line in (
        "| updates | failed | 9.0 | float16: no kernel |",
        "| speed of base-128 | left out | 0.0 | 9 s left of --minutes, 60 s needed |",
        "| masked tokens | 1e-06 | 0.0001 | yes | of 9 logits |",
        "32 compilations in 300 updates",
        "| base-512 | wiki | float16 | 16 | 100 | 90 - 110 | 45 | 90 | 0.5 | 0.16 | 10.5 | 8 | 2 | 30 |",
        "Driver Version: 550",
    ):
        assert line in page


def test_a_run_without_a_gpu_says_so_under_every_heading() -> None:
    page = render(canned(is_gpu=False))
    assert page.count(CPU_NOTE) == sum(line.startswith("#") for line in page.splitlines()) == 6


def test_the_script_starts_the_check_with_its_flags(tmp_path: Path) -> None:
    project = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    (project / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "gpu_check.sh", project / "benchmarks")
    (project / "init_tf.sh").write_text("echo /env/bin/python\n")
    command = ["bash", str(project / "benchmarks" / "gpu_check.sh"), "--minutes=5"]
    done = subprocess.run(command, env={**os.environ, "DRY_RUN": "1"}, capture_output=True, text=True, check=True)
    assert done.stdout == "/env/bin/python -m benchmarks.gpu_check --minutes=5\n"
