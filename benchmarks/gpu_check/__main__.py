"""Whether and how well this project works on a machine's GPUs: `bash benchmarks/gpu_check.sh [--minutes=10]`.

Leaves gpu_check.md, a page, and one .tar.gz with it, the same figures as JSON, and the logs of all parts. Exit code 1
where a part failed. --device=cpu does the same with small models on the CPU.
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

from benchmarks.gpu_check import plan
from benchmarks.gpu_check.report import CPU_NOTE, render, verdict
from benchmarks.gpu_check.runner import FAILED, Runner


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("gpu_check.sh", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="The most that all parts take together; default 10."
    )
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto", help="cpu: without GPUs, small models.")
    parser.add_argument("--steps", default=",".join(plan.STEPS), help="After the start: commas; default: %(default)s.")
    parser.add_argument("--output_dir", type=os.path.expanduser, default="results/gpu_check", help="Made anew.")
    arguments = parser.parse_args(values)
    if not 1.0 <= arguments.minutes <= 24 * 60:
        parser.error(f"--minutes must be 1 to 1440, got {arguments.minutes:g}")
    arguments.steps = [name for name in arguments.steps.split(",") if name]
    unknown = sorted(set(arguments.steps) - set(plan.STEPS))
    if unknown:
        parser.error(f"--steps: unknown {', '.join(unknown)}; there are {', '.join(plan.STEPS)}")
    return arguments


def _say(line: str) -> None:
    print(line, flush=True)


def _write(runner: Runner, minutes: float, directory: pathlib.Path) -> pathlib.Path:
    """Writes the page and the figures, and packs them with the logs; returns the archive."""
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    figures = {"date": date, "seconds": runner.seconds, "parts": [dataclasses.asdict(part) for part in runner.parts]}
    (directory / "gpu_check.json").write_text(json.dumps(figures, indent=1))
    (directory / "gpu_check.md").write_text(render(runner.parts, runner.seconds, minutes, date))
    name = f"gpu_check-{date[:10]}"
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
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # of all that is started
        _say(CPU_NOTE)
    runner = Runner(directory, arguments.minutes, _say)
    try:
        plan.run_all(runner, arguments.device, arguments.steps)
    finally:
        archive = _write(runner, arguments.minutes, directory)
        _say(f"{verdict(runner.parts)}\nreport: {directory / 'gpu_check.md'}\nto send back: {archive}")
    return int(any(part.state == FAILED for part in runner.parts))


if __name__ == "__main__":
    sys.exit(main())
