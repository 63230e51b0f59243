"""Correctness and speed on this machine: `bash benchmarks/gpu_check.sh [--minutes=10] [--output_dir=DIR]`.

Leaves gpu_check.md, gpu_check.json and the logs of all parts in one .tar.gz to send back. Exit code 1 where a part
failed. Without a GPU it computes small models on the CPU, and says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import signal
import sys
import tarfile
from typing import Any

from benchmarks.gpu_check import plan
from benchmarks.gpu_check.report import CPU_NOTE, render, verdict
from benchmarks.gpu_check.runner import FAILED, Runner
from benchmarks.gpu_check.sizes import Sizes


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("gpu_check.sh", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="The most that all parts take together; default 10."
    )
    parser.add_argument("--output_dir", type=os.path.expanduser, default="results/gpu_check", help="Made anew.")
    arguments = parser.parse_args(values)
    if not 1.0 <= arguments.minutes <= 24 * 60:
        parser.error(f"--minutes must be 1 to 1440, got {arguments.minutes:g}")
    return arguments


def _say(line: str) -> None:
    print(line, flush=True)


def _contents(runner: Runner, machine: dict, sizes: Sizes, minutes: float) -> dict[str, Any]:
    is_gpu = machine.get("is_gpu", False)
    names = [gpu.get("device_name", "GPU") for gpu in machine.get("gpus", [])]
    return {
        "note": "" if is_gpu else CPU_NOTE.strip("*"),
        "is_gpu": is_gpu,
        "device": names[0] if names else machine.get("processor", "unknown"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "commit": machine.get("commit", "unknown"),
        "minutes": minutes,
        "seconds": runner.seconds,
        "sizes": sizes.describe(),
        "parts": [dataclasses.asdict(part) for part in runner.parts],
    }


def _write(report: dict[str, Any], directory: pathlib.Path) -> pathlib.Path:
    """Writes the pages and packs them with the logs; returns the archive."""
    (directory / "gpu_check.json").write_text(json.dumps(report, indent=1))
    (directory / "gpu_check.md").write_text(render(report))
    name = f"gpu_check-{'gpu' if report['is_gpu'] else 'cpu-run'}-{report['date'][:10]}"
    archive = directory / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in [directory / "gpu_check.json", directory / "gpu_check.md", *sorted(directory.rglob("*.log"))]:
            tar.add(path, f"{name}/{path.relative_to(directory)}")
    return archive


def main(values: list[str] | None = None) -> int:
    """Runs all parts; the report is written also where the check is interrupted. Returns the exit code."""
    arguments = _arguments(values)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what a part started is ended
    directory = pathlib.Path(arguments.output_dir).resolve()
    if directory.exists() and not (directory / "logs").is_dir() and any(directory.iterdir()):
        print(f"error: --output_dir={directory} holds other files; name a new directory", file=sys.stderr)
        return 2
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    runner = Runner(directory, arguments.minutes, _say)
    machine = plan.describe_machine(runner, directory).result
    sizes = plan.choose_sizes(machine, arguments.minutes)
    if not sizes.is_gpu:
        _say(CPU_NOTE.strip("*"))
    _say(sizes.describe())
    try:
        plan.run_all(runner, directory, machine, sizes)
    finally:
        report = _contents(runner, machine, sizes, arguments.minutes)
        archive = _write(report, directory)
        _say(
            "\n".join(
                filter(None, [report["note"], f"{verdict(report)}, {runner.seconds:.0f} s", f"report: {archive}"])
            )
        )
    return int(any(part.state == FAILED for part in runner.parts))


if __name__ == "__main__":
    sys.exit(main())
