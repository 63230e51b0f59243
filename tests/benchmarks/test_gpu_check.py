"""The GPU check: what is within rounding, what becomes of parts that fail, what lies where, what the report says."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.gpu_check import numbers, plan, runner, updates
from benchmarks.gpu_check.numbers import (
    UNIT_ROUNDOFF,
    allowed_gradient,
    allowed_loss,
    allowed_step,
    largest_difference,
    relative_difference,
    row,
)
from benchmarks.gpu_check.report import CPU_NOTE, render, verdict
from benchmarks.gpu_check.runner import FAILED, NOT_RUN, OK, Part, Runner, describe_failure
from bert_pretrain.train import device
from tests.e2e import runs

ROOT = Path(__file__).parents[2]
VALUES = np.random.default_rng(0).normal(size=[300, 40]).astype(np.float32)


def test_rounding_is_within_what_is_allowed_and_a_wrong_share_is_not() -> None:
    half = VALUES.astype(np.float16).astype(np.float32)
    assert 0.1 * UNIT_ROUNDOFF["float16"] < relative_difference(half, VALUES) < UNIT_ROUNDOFF["float16"]
    for dtype in UNIT_ROUNDOFF:
        assert allowed_loss(dtype) < allowed_gradient(dtype) < allowed_step(dtype) < 1.0
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


def test_a_comparison_that_is_not_within_rounding_is_wrong() -> None:
    rows = [row("loss", 0.0, 1e-6), row("gradient", 0.5, 1e-6), {"name": "float16", "ok": False, "where": "no kernel"}]
    assert numbers.wrong_rows(rows) == ["gradient: 0.5, 1e-06 allowed", "float16: no kernel"]


# --- Parts and their processes ---


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, limit: float = 60.0) -> list[Part]:
    """Three parts of one process that executes `code`, where `report` is child.Report."""
    before = "import sys; from benchmarks.gpu_check.child import Report; report = Report(sys.argv[2])\n"
    monkeypatch.setattr(runner, "CHILD", [sys.executable, "-c", before + code])
    monkeypatch.setattr(runner, "_LEAST_SECONDS", 0.5)
    return Runner(tmp_path, 1.0, lambda line: None).run(["a", "b", "c"], "function", limit)


@pytest.mark.parametrize(
    ("code", "limit", "state", "reason"),
    [
        ("raise ValueError('no kernel')", 60.0, FAILED, "exit code 1: ValueError: no kernel"),
        ("import os; os.abort()", 60.0, FAILED, "SIGABRT: nothing was printed"),
        ("import time; print('Error', flush=True); time.sleep(60)", 5.0, FAILED, "not finished in 5 s"),
        ("raise SystemExit", 60.0, FAILED, "it left no result"),
        ("report('b', wrong=['half of it', 'all of it']); report('c')", 60.0, FAILED, "half of it; all of it"),
        ("report('b', not_run='one device'); report('c')", 60.0, NOT_RUN, "one device"),
        ("report('b', not_run=''); report('c')", 60.0, OK, ""),
    ],
)
def test_a_part_that_ends_badly_costs_itself_alone(tmp_path, monkeypatch, code, limit, state, reason) -> None:
    first, second, third = run(tmp_path, monkeypatch, f"report('a', figures='9 rows/s')\n{code}", limit)
    assert (first.state, first.result["figures"]) == (OK, "9 rows/s")
    assert (second.state, second.reason) == (state, reason)
    is_reached = "report('c')" in code
    assert (third.state, third.reason) == ((OK, "") if is_reached else (FAILED, "not reached"))
    assert bool(second.log) == ("ValueError" in code or "print" in code)


def test_a_part_without_time_is_not_run(tmp_path: Path) -> None:
    (part,) = Runner(tmp_path, 0.1, lambda line: None).run(["part"], "function", 60.0)
    assert (part.state, part.reason) == (NOT_RUN, "1 s left of --minutes")


def test_the_last_line_that_names_an_error_is_the_reason() -> None:
    lines = "RuntimeError: worker ours died", "tensorflow.ResourceExhaustedError: OOM when allocating", "\t [[node x]]"
    log = "\n".join(lines)
    assert describe_failure(1, log) == "exit code 1: tensorflow.ResourceExhaustedError: OOM when allocating"
    assert describe_failure(-9, "loading\n") == "SIGKILL: loading"


def test_a_gpu_without_memory_for_a_micro_batch_is_tried_with_half_of_it(tmp_path: Path, monkeypatch) -> None:
    code = """
import json, sys
from benchmarks.gpu_check.child import Report
report, arguments = Report(sys.argv[2]), json.loads(sys.argv[3])
if arguments["is_first"]:
    report("warm-up")
if arguments["rows"] > 8:
    sys.exit("tensorflow.ResourceExhaustedError: OOM")
if arguments["is_first"]:
    report("placement")
report(arguments["name"], rows_per_second=1.0, wanted_rows=arguments["rows"])
"""
    monkeypatch.setattr(runner, "CHILD", [sys.executable, "-c", code])
    check = Runner(tmp_path, 10, lambda line: None)
    sizes = plan.Sizes(rows=16)
    plan.STEPS["graph"](check, sizes)
    plan.STEPS["speed"](check, sizes)
    assert [(part.name, part.state) for part in check.parts] == [
        ("warm-up", OK),
        ("placement", NOT_RUN),
        ("speed of large, 1 x 16 rows", NOT_RUN),
        ("warm-up", OK),
        ("placement", OK),
        ("speed of large, 1 x 8 rows", OK),
        ("speed of large, 8 x 8 rows", OK),
        ("speed of large, 1 x 16 rows", NOT_RUN),
        ("speed of large, 8 x 16 rows", NOT_RUN),
    ]


def test_sizes_follow_the_device_and_its_memory() -> None:
    start = {"is_gpu": True, "num_gpus": 2, "dtype": "float16", "memory_bytes": 139 * 2**30}
    assert plan.choose_sizes(start).rows == 64
    assert plan.choose_sizes({**start, "memory_bytes": 16 * 2**30}).rows == 8
    assert plan.choose_sizes({**start, "memory_bytes": None}).rows == 4
    assert plan.choose_sizes({"is_gpu": False}).speed_model == "tiny"


# --- What a traced update shows ---


def test_a_trace_tells_what_lies_on_the_host_and_what_crosses(tmp_path: Path, monkeypatch) -> None:
    """A second CPU stands for the host, the first for the GPU."""
    real, session_config = tf.device, device.session_config
    monkeypatch.setattr(tf, "device", lambda name: real("/cpu:1" if name == "/cpu:0" else name))

    def with_two_cpus(*arguments: Any) -> tf.compat.v1.ConfigProto:
        proto = session_config(*arguments)
        proto.device_count["CPU"] = 2
        return proto

    monkeypatch.setattr(device, "session_config", with_two_cpus)
    data = runs.make_data(tmp_path)
    settings = runs.settings(output_dir=str(tmp_path / "run"), do_eval=True, native_kernels=False, **data)
    warm_up: list[float] = []
    found = updates.run_updates(runs.make_config(**settings), 2, warm_up.append)
    assert len(found.seconds) == len(found.sums) == updates.WARM_UP + 3
    assert warm_up == [sum(found.seconds[: updates.WARM_UP])]
    assert [one.next_sentence_count for one in found.sums] == [6.0] * len(found.sums)

    def is_host(node: Any) -> bool:
        return node.device.endswith("CPU:1")

    assert updates.misplaced(found.trace.partition_graphs, is_host) == []
    everything = updates.misplaced(found.trace.partition_graphs, lambda node: True)
    assert any("MatMul" in one for one in everything) and any("VarHandleOp" in one for one in everything)
    crossed = list(updates.crossings(found.trace, is_host))
    assert crossed
    assert all(one.bytes < updates.LARGE_BYTES for one in crossed)  # that of a control edge has no bytes
    told: list[dict[str, Any]] = []
    updates.report_placement(lambda name, **values: told.append(values), found.trace, 9999, True, is_host)
    updates.report_placement(
        lambda name, **values: told.append(values), found.trace, 9999, True, lambda node: "MatMul" in node.op
    )
    assert told[0]["wrong"] == []
    assert "MatMul" in told[1]["wrong"][0]
    monkeypatch.setattr(updates, "LARGE_BYTES", 10)
    updates.report_placement(lambda name, **values: told.append(values), found.trace, 0, True, is_host)
    largest = max(crossed, key=lambda one: one.bytes)
    assert told[2]["wrong"] == [f"{largest.name}, which crosses, has 16 bytes; ids have at most 10"]
    assert told[2]["table"]["rows"] == [[largest.name, "host", "16"]]
    traced = updates.profile(found.trace)
    assert not traced["is_gpu"]
    assert traced["launches"] > 1000
    assert sum(row[3] for row in traced["kernels"]) <= traced["micros"]


def test_a_profile_counts_the_kernels_of_gpus_alone() -> None:
    trace = tf.compat.v1.RunMetadata()
    for name, labels in (
        ("/job:localhost/replica:0/task:0/device:GPU:0", ["MatMul = MatMul(a, b)"]),
        ("/device:GPU:0/stream:all", ["void gemm<1, 2> regs:9 grid:1,1,1", "fusion_3", "void gemm<1, 2> regs:9"]),
        ("/device:GPU:0/memcpy", ["MemcpyH2D 4"]),
    ):
        stats = trace.step_stats.dev_stats.add(device=name)
        for label in labels:
            stats.node_stats.add(node_name="layer/op", timeline_label=label, op_end_rel_micros=7)
    assert updates.profile(trace) == {
        "is_gpu": True, "launches": 3, "micros": 21,
        "kernels": [["void gemm<1, 2>", "layer/op", 2, 14], ["fusion_3", "layer/op", 1, 7]],
    }  # fmt: skip


def speed(micro_batches: int, seconds: float, launches: int) -> Part:
    kernels = [[f"kernel {number}", "op", 2, 100 - number] for number in range(30)]
    trace = {"is_gpu": True, "launches": launches, "micros": 3000, "kernels": kernels}
    values = {
        "micro_batches": micro_batches, "wanted_rows": 64, "rows": 64.0 * micro_batches, "update_seconds": seconds,
        "rows_per_second": 200.0, "examples_per_second": 390.0, "utilization": 0.4, "memory_bytes": 2**36,
        "start_seconds": 30.0, "trace": trace,
    }  # fmt: skip
    return Part(f"speed of large, {micro_batches} x 64 rows", OK, result={"figures": "200 rows/s", **values})


def test_two_numbers_of_micro_batches_tell_what_the_rest_of_an_update_takes(tmp_path: Path) -> None:
    check = Runner(tmp_path, 1.0, lambda line: None)
    check.parts += [speed(1, 0.4, 2000), speed(8, 2.5, 9000)]
    plan.STEPS["profile"](check, plan.Sizes())
    part = check.parts[-1]
    assert part.state == OK
    assert part.result["figures"] == (
        "a micro-batch 300 ms and 1,000 kernel launches, the rest of an update 100 ms and 1,000"
    )


# --- The report and the command ---


def parts(is_gpu: bool) -> list[Part]:
    start = {
        "is_usable": True, "is_gpu": is_gpu, "device": "NVIDIA H200", "num_gpus": 8, "commit": "0123456789ab",
        "machine": "Linux", "versions": {"tensorflow": "2.21.0"}, "libraries": {"NCCL": "22703"}, "environment": {},
        "tools": {"nvidia-smi": "NVIDIA H200, 550.1\n" * 8}, "figures": "everything works",
    }  # fmt: skip
    rows = [[f"what {number}", 1e-6, 1e-4, number != 3, "where"] for number in range(11)]
    table = {"title": "numbers: allowed is rounding", "columns": ["what", "d", "a", "within", "where"], "rows": rows}
    crossing = {"title": "placement: tensors", "columns": ["tensor", "to", "bytes"], "rows": [["x", "host", "9"]] * 5}
    log = ["RuntimeError: no"] * runner._LOG_LINES
    failed = [Part(f"failed {number}", FAILED, "no", 1.0, {}, log) for number in range(5)]
    profile = {"title": "profile: longest", "columns": ["share"], "rows": [["1 %"]] * 30}
    return [
        Part("start", OK, "", 9.0, start), Part("placement", FAILED, "10 cross", 1.0, {"table": crossing}),
        Part("numbers", FAILED, "what 3", 9.0, {"table": table}), speed(1, 0.4, 2000), speed(8, 2.5, 9000),
        Part("profile", OK, result={"table": profile}), *failed,
        Part("ranks", NOT_RUN, "one GPU"),
    ]  # fmt: skip


def test_the_report_is_a_page_with_the_verdict_first() -> None:
    page = render(json_parts(parts(is_gpu=True)), 113.0, 10.0, "2026-11-27")
    lines = page.splitlines()
    assert len(lines) <= 120
    assert lines[0].startswith("# GPU check: works; of 12 parts 4 ok, 7 failed, 1 not run; failed: placement, numbers,")
    assert CPU_NOTE not in page
    for line in (
        "- not run ranks (0 s): one GPU",
        "- failed  failed 0 (1 s): no",
        "RuntimeError: no",
        "| what 3  | 1e-06 | 0.0001 | NO     | where |",
        "| large, 1 x 64 rows | 200    | 390        | 0.4      | 40.0%       | 64      | 30      |",
        "- tensorflow 2.21.0, NCCL 22703",
    ):
        assert line in lines
    assert CPU_NOTE in render(parts(is_gpu=False), 113.0, 10.0, "2026-11-27")


def json_parts(values: list[Part]) -> list[Part]:
    """As they are read from a process's file."""
    return [Part(**json.loads(json.dumps(vars(part)))) for part in values]


def test_a_machine_on_which_nothing_works_is_said_first() -> None:
    start = Part("start", FAILED, "no GPU: nvidia-smi and /dev show none", 9.0, {"versions": {}})
    assert verdict([start]) == "does not work: no GPU: nvidia-smi and /dev show none"
    assert render([start], 9.0, 10.0, "2026-11-27").startswith(f"# GPU check: {verdict([start])}\n")


def check(tmp_path: Path, *flags: str, **environ: str) -> tuple[subprocess.CompletedProcess, str]:
    """The command and its page."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", f"--output_dir={tmp_path / 'out'}", *flags]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )  # fmt: skip
    return done, (tmp_path / "out" / "gpu_check.md").read_text()


@pytest.mark.parametrize(
    ("shown", "reason"),
    [("echo 'GPU 0: Some Model (UUID: GPU-1)'", "this machine has 1 GPUs"), ("exit 9", "no GPU: nvidia-smi and /dev")],
)
def test_a_machine_without_gpus_for_tensorflow_ends_the_check_in_one_line(tmp_path: Path, shown, reason) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees a GPU")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{shown}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done, page = check(tmp_path, PATH=path, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"does not work: {reason}"))
    assert page.startswith(f"# GPU check: {line}\n")
    assert ("- nvidia-smi: 1 x GPU 0: Some Model" in page) == ("echo" in shown)


@pytest.mark.slow
def test_all_parts_run_without_a_gpu_and_one_that_fails_ends_no_other(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif sys.argv[1:2] == ['compilations'] or 'compilations' in sys.orig_argv:\n"
        "    print('MemoryError: on purpose', file=sys.stderr)\n    os._exit(3)\n"
    )
    done, page = check(tmp_path, "--device=cpu", "--minutes=20", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert page.startswith("# GPU check: works; of 16 parts 13 ok, 1 failed, 2 not run; failed: compilations\n")
    assert CPU_NOTE in page
    assert "MemoryError: on purpose" in page.splitlines()


@pytest.mark.parametrize(("num_gpus", "extras"), [(0, ""), (1, ""), (2, " --horovod")])
def test_the_script_starts_the_check_with_its_flags(tmp_path: Path, num_gpus: int, extras: str) -> None:
    project = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    (project / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "gpu_check.sh", project / "benchmarks")
    (project / "init_tf.sh").write_text('echo "init_tf.sh $*" >&2\necho /env/bin/python\n')
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nfor i in $(seq {num_gpus}); do echo GPU $i: H200; done\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    command = ["bash", str(project / "benchmarks" / "gpu_check.sh"), "--minutes=5"]
    environ = {**os.environ, "DRY_RUN": "1", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "/env/bin/python -m benchmarks.gpu_check --minutes=5\n"
    assert done.stderr == f"init_tf.sh --print-python{extras}\n"
