"""Disturbs training runs at random until the time is over: `python -m benchmarks.soak --minutes=20`.

First an undisturbed run for each number of ranks. Then round after round the same run anew, in a directory on a small
tmpfs: it is started, disturbed at a random moment, and started again, until it has been disturbed --disturbances times
and comes to its end. A round is good when each start ended as its disturbance allows, nothing was left behind, and the
end is the undisturbed run's: weights, metrics.jsonl and TensorBoard's points bit for bit, each update once
(soak_checks.py).

Filling the disk needs root, for the tmpfs; elsewhere that disturbance is left out.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from benchmarks import soak_checks
from bert_pretrain.checkpoints import checkpoint_files
from bert_pretrain.run_files import results
from tests.e2e import ranks, runs

_PATIENCE_SECONDS = 120.0  # for a start to end
_INVALID_INPUT = 2
_DAY = 86_400


class Settings(NamedTuple):
    """What all rounds share."""

    folder: pathlib.Path
    disk: pathlib.Path  # the directories of runs
    data: dict[str, str]
    updates: int
    num_disturbances: int  # of a round, at most
    choices: list[Callable[[Run], None]]
    seconds: dict[int, float]  # number of ranks -> the shortest time of a run that was not disturbed


class Run:
    """A run that is started again and again, and what was found wrong with it."""

    def __init__(self, settings: Settings, num_ranks: int, output_dir: pathlib.Path) -> None:
        self.settings, self.num_ranks, self.output_dir = settings, num_ranks, output_dir
        self.num_starts = 0
        self.begin = 0.0  # of this start
        self.may_fail = False  # this start was disturbed by what may end it with one line
        self.faults: list[str] = []
        self.damaged: dict[pathlib.Path, int] = {}  # files of checkpoints that were damaged here, and their inodes
        self.job: Optional[ranks.Started] = None

    def start(self) -> None:
        """Starts the run, from its beginning or from its newest checkpoint."""
        arguments = runs.flags(
            **self.settings.data, **runs.settings(
                output_dir=str(self.output_dir), do_eval=True, num_train_steps=self.settings.updates,
                save_checkpoints_steps=10, keep_checkpoint_max=3, samples_start_eval=0, samples_between_eval=300,
                stop_threshold=0.0, max_eval_steps=0,
            ),
        )  # fmt: skip
        alone = [sys.executable, "-m", "bert_pretrain.run", "--intra_op_threads=1", *arguments]
        command = alone if self.num_ranks == 1 else [*ranks.mpirun(self.num_ranks), *ranks.trainer(arguments)]
        self.num_starts += 1
        self.begin = time.monotonic()
        self.may_fail = False
        log = self.settings.folder / "logs" / f"{self.output_dir.name}-{self.num_starts}"
        self.job = ranks.start(command, log)

    def pid(self) -> Optional[int]:
        """A random rank's process; None before it is there and when it has gone."""
        if self.job.process.poll() is not None:
            return None
        return self.job.process.pid if self.num_ranks == 1 else self.job.find(random.randrange(self.num_ranks))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to a random rank."""
        while (pid := self.pid()) is None and self.job.process.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)

    def is_over(self, seconds: float) -> bool:
        """Waits; whether the start has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.job.process.wait(seconds)
        return self.job.process.poll() is not None

    def end(self, *allowed: int, when: str) -> None:
        """Waits for the end of the start. It must come, with an allowed code (none given: any) and leave no process."""
        try:
            ended = self.job.end(_PATIENCE_SECONDS)
        except AssertionError:
            self._blame(f"not over {_PATIENCE_SECONDS:.0f} s after {when}")
            return
        lines = ended.err.strip().splitlines() or ["nothing on stderr"]
        last = next((line for line in reversed(lines) if "rror" in line), lines[-1])
        if allowed and ended.code not in allowed:
            self._blame(f"exit code {ended.code} after {when}: {last}")
        if allowed and "Traceback" in ended.err:
            self._blame(f"a traceback after {when}: {last}")
        left = ranks.left_behind(str(self.output_dir))
        if left:
            self._blame(f"{len(left)} processes left after {when}")

    def is_completed(self) -> bool:
        """Whether this start ended well, training is done and its results are written.

        results.json alone could be an earlier start's, whose last checkpoint was damaged afterwards.
        """
        if self.job.process.poll() != 0:
            return False
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.output_dir / "results.json").read_text())["end"] == results.COMPLETED
        return False

    def remove_damaged(self) -> None:
        """Removes the checkpoints that were damaged here and not written again: the run names them and lets them be."""
        for path, inode in self.damaged.items():
            if path.exists() and path.stat().st_ino == inode:
                checkpoint_files.remove_checkpoint(str(path).rpartition(".data-")[0])

    def _blame(self, text: str) -> None:
        self.faults.append(f"start {self.num_starts}: {text}")


def sigkill(run: Run) -> None:
    """A random rank is killed."""
    run.signal(signal.SIGKILL)
    run.end(when="SIGKILL")


def sigterm(run: Run) -> None:
    """A random rank is asked to end; before it listens or joins, the signal ends the job."""
    _ask(run, signal.SIGTERM)


def sighup(run: Run) -> None:
    """The same by SIGHUP, as of a terminal that is closed."""
    _ask(run, signal.SIGHUP)


def sigusr1(run: Run) -> None:
    """The same by SIGUSR1, as of a scheduler."""
    _ask(run, signal.SIGUSR1)


def _ask(run: Run, number: signal.Signals) -> None:
    """A run that has just read a damaged record ends with that line."""
    run.signal(number)
    run.end(0, -number, 128 + number, *((_INVALID_INPUT,) if run.may_fail else ()), when=number.name)


def two_sigterms(run: Run) -> None:
    """The second signal ends a rank at once."""
    run.signal(signal.SIGTERM)
    time.sleep(random.uniform(0.0, 0.5))
    run.signal(signal.SIGTERM)
    run.end(when="two SIGTERMs")


def full_disk(run: Run) -> None:
    """The disk is full for a few seconds; the run goes on, or ends with one line."""
    filler = run.settings.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    run.is_over(random.uniform(0.0, 4.0))
    filler.unlink()
    run.may_fail = True


def damaged_shard(run: Run) -> None:
    """A shard is damaged before a start or during it, and put back; the run ends with one line, or did not read it."""
    if random.random() < 0.5:
        sigkill(run)
        run.start()
    shard = random.choice(sorted(pathlib.Path(run.settings.data["input_files_dir"]).glob("*.tfrecord")))
    kept = run.settings.folder / "kept" / shard.name
    shutil.copy2(shard, kept.with_suffix(".damaged"))
    _flip(kept.with_suffix(".damaged"))
    os.replace(shard, kept)
    os.replace(kept.with_suffix(".damaged"), shard)
    run.is_over(random.uniform(0.0, 10.0))
    os.replace(kept, shard)
    run.may_fail = True


def damaged_checkpoint(run: Run) -> None:
    """The newest checkpoint is damaged or cut while nothing runs; the one before it is taken."""
    sigkill(run)
    checkpoints = sorted(
        run.output_dir.glob("model.ckpt-*.data-*"), key=lambda path: int(path.name.split("-")[1].split(".")[0])
    )
    if len(checkpoints) < 2:
        return
    run.damaged[checkpoints[-1]] = checkpoints[-1].stat().st_ino
    if random.random() < 0.5:
        _flip(checkpoints[-1])
    else:
        os.truncate(checkpoints[-1], random.randrange(checkpoints[-1].stat().st_size))


def moved_clock(run: Run) -> None:
    """All files of the run and its data seem to be from another day, past or future."""
    for folder in (run.output_dir, pathlib.Path(run.settings.data["input_files_dir"])):
        for path in folder.glob("*"):
            now = time.time() + random.uniform(-400, 400) * _DAY
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (now, now))


DISTURBANCES: tuple[Callable[[Run], None], ...] = (
    sigkill, sigterm, sighup, sigusr1, two_sigterms, full_disk, damaged_shard, damaged_checkpoint, moved_clock
)  # fmt: skip


def _flip(path: pathlib.Path) -> None:
    """Changes one byte."""
    place = random.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << random.randrange(8))]))


class Round(NamedTuple):
    """What a round did."""

    num_ranks: int
    num_starts: int
    disturbances: list[str]
    faults: list[str]


def disturbed(settings: Settings, number: int, num_ranks: int) -> Round:
    """One round."""
    run = Run(settings, num_ranks, settings.disk / f"round-{number}")
    done: list[str] = []
    run.start()
    while not run.faults:
        moment = random.uniform(0.0, 0.9 * settings.seconds[num_ranks])
        if len(done) == settings.num_disturbances or run.is_over(moment):
            allowed = (0, _INVALID_INPUT) if run.may_fail else (0,)
            run.end(*allowed, when=done[-1] if done else "nothing")
            if not done:  # the first run of all took longer, while files were read from disk and kernels compiled
                settings.seconds[num_ranks] = min(settings.seconds[num_ranks], time.monotonic() - run.begin)
            if run.is_completed():
                break
        else:
            disturb = random.choice(settings.choices)
            done.append(disturb.__name__)
            disturb(run)
        if run.is_over(0.0) and not run.faults:
            run.start()
    run.remove_damaged()
    undisturbed = settings.folder / f"undisturbed-{num_ranks}"
    faults = run.faults or soak_checks.faults(run.output_dir, undisturbed, settings.updates)
    if faults:
        shutil.copytree(run.output_dir, settings.folder / "bad" / run.output_dir.name)
    shutil.rmtree(run.output_dir)
    return Round(num_ranks, run.num_starts, done, faults)


def undisturbed_seconds(settings: Settings, num_ranks: int) -> float:
    """Makes the undisturbed run of so many ranks; returns how long it took."""
    run = Run(settings, num_ranks, settings.folder / f"undisturbed-{num_ranks}")
    begin = time.monotonic()
    run.start()
    run.end(0, when="an undisturbed run")
    if run.faults:
        raise RuntimeError(run.faults[0])
    return time.monotonic() - begin


@contextlib.contextmanager
def small_disk(path: pathlib.Path) -> Iterator[bool]:
    """A tmpfs of 32 MiB at `path`; a plain folder, and False, where it cannot be mounted."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(path)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def _table(rounds: list[Round]) -> str:
    lines = ["| round | ranks | starts | disturbances | result |", "|---|---|---|---|---|"]
    lines += [
        f"| {number} | {r.num_ranks} | {r.num_starts} | {', '.join(r.disturbances)} "
        f"| {'; '.join(r.faults) or 'as undisturbed'} |"
        for number, r in enumerate(rounds, start=1)
    ]
    counts = collections.Counter(name for r in rounds for name in r.disturbances)
    totals = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    good = sum(not r.faults for r in rounds)
    return "\n".join([*lines, "", f"{good} of {len(rounds)} rounds ended like the undisturbed run; {totals}"])


def main(values: list[str] | None = None) -> int:
    """Prints a line per round and the table; 0 when all rounds were good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="No round begins later.")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--disturbances", type=int, default=4, help="Of a round, at most.")
    names = ",".join(one.__name__ for one in DISTURBANCES)
    parser.add_argument("--only", default=names, help=f"Kinds of disturbances; default: {names}.")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="Of moments and disturbances.")
    parser.add_argument(
        "--output_dir", default="results/soak", help="For data, runs and logs; earlier ones are removed."
    )
    arguments = parser.parse_args(values)
    begin = time.monotonic()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    random.seed(arguments.seed)
    print(f"--seed={arguments.seed}", flush=True)
    folder = pathlib.Path(arguments.output_dir).resolve()
    for name in ("train", "eval", "disk", "kept", "logs", "bad", "undisturbed-1", "undisturbed-2"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "kept").mkdir(parents=True)
    with small_disk(folder / "disk") as has_small_disk:
        if not has_small_disk:
            print("no tmpfs could be mounted, which needs root: the disk is never full", flush=True)
        choices = [one for one in DISTURBANCES if one.__name__ in arguments.only.split(",")]
        choices = [one for one in choices if has_small_disk or one is not full_disk]
        settings = Settings(
            folder, folder / "disk", runs.make_data(folder), arguments.updates, arguments.disturbances, choices, {}
        )
        for number in (1, 2):
            settings.seconds[number] = undisturbed_seconds(settings, number)
        seconds = settings.seconds
        print(f"undisturbed: {seconds[1]:.1f} s on one rank, {seconds[2]:.1f} s on two", flush=True)
        rounds: list[Round] = []
        while not rounds or time.monotonic() - begin < 60 * arguments.minutes:
            number = len(rounds) + 1
            num_ranks = 1 + number % 2
            rounds.append(disturbed(settings, number, num_ranks))
            print(f"round {number}: {'BAD' if rounds[-1].faults else 'good'} {rounds[-1]}", flush=True)
    table = _table(rounds)
    (folder / "soak.md").write_text(table + "\n")
    print(f"\n{table}")
    return 1 if any(r.faults for r in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
