"""Kills a random rank at a random time, again and again: `python -m benchmarks.kill_rounds --help`.

First an undisturbed run. Then, round after round, the same run anew under the launcher with --max_restarts: one of its
ranks gets SIGKILL at a moment drawn over the whole of the run, imports and saving included. A round is good when the
launcher saw mpirun end with a non-zero code, none of the killed job's processes was left, and the restarted run ended
with the very weights of the undisturbed one.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import time
from typing import NamedTuple

from benchmarks import inputs, soak_checks
from tests.e2e import ranks

_ROOT = pathlib.Path(__file__).parents[1]
_RESTART = re.compile(r"The job ended with exit code (\d+); restart 1 of 1")
_PATIENCE_SECONDS = 60.0


class Round(NamedTuple):
    """What one kill did."""

    rank: int
    killed_after_seconds: float
    updates_before: int  # shown before the kill
    exit_code: int  # mpirun's
    seconds_to_end: float  # from the kill to the launcher's seeing the end
    num_left: int  # processes of the killed job that were there then, and of the restarted one after its end
    same_weights: bool

    @property
    def is_good(self) -> bool:
        return self.exit_code != 0 and self.seconds_to_end < 60.0 and self.num_left == 0 and self.same_weights


def command(folder: pathlib.Path, output_dir: pathlib.Path, arguments: argparse.Namespace) -> list[str]:
    """The launcher's, for a run of the tiny model."""
    return [
        sys.executable, "-m", "bert_pretrain.launch", "--max_restarts=1", "--do_train",
        f"--input_files_dir={folder}/shards", f"--bert_config_file={_ROOT}/configs/model/tiny.json",
        f"--output_dir={output_dir}", "--train_batch_size=4", "--num_accumulation_steps=2", "--num_warmup_steps=5",
        f"--num_train_steps={arguments.updates}", "--save_checkpoints_steps=10", "--display_loss_steps=1",
        "--keep_checkpoint_max=1", "--nouse_xla",
    ]  # fmt: skip


def disturbed(folder: pathlib.Path, number: int, life_seconds: float, arguments: argparse.Namespace) -> Round:
    """One round; life_seconds is how long an undisturbed run takes."""
    output_dir = folder / f"round-{number}"
    job = ranks.start(command(folder, output_dir, arguments), output_dir.with_suffix(".log"), NP=str(arguments.ranks))
    rank, begin = random.randrange(arguments.ranks), time.monotonic()
    time.sleep(random.uniform(0.0, life_seconds))
    while (victim := job.find(rank)) is None and job.process.poll() is None:
        time.sleep(0.01)  # mpirun has not started it yet
    if victim is None:
        raise RuntimeError(f"round {number}: the run was over before it could be killed")
    killed = job.descendants()
    os.kill(victim, signal.SIGKILL)
    killed_at, shown = time.monotonic(), len(re.findall(r"^update ", job.out, re.MULTILINE))
    while (ended := _RESTART.search(job.err)) is None:
        if time.monotonic() - killed_at > _PATIENCE_SECONDS:
            raise RuntimeError(f"round {number}: the job stood {_PATIENCE_SECONDS:.0f} s after rank {rank} was killed")
        time.sleep(0.05)
    seconds_to_end = time.monotonic() - killed_at
    num_left = sum(map(ranks.is_running, killed))
    last = job.end(10 * life_seconds + 60)
    if last.code != 0:
        raise RuntimeError(f"round {number}: the restarted run ended with {last.code}:\n{last.err[-2000:]}")
    num_left += len(ranks.left_behind(str(output_dir)))
    same = soak_checks.same_weights(folder / "undisturbed", output_dir, arguments.updates)
    shutil.rmtree(output_dir)
    return Round(rank, killed_at - begin, shown, int(ended[1]), seconds_to_end, num_left, same)


def _table(rounds: list[Round]) -> str:
    lines = [
        "| round | rank | killed after s | updates before | exit code | s to the end | processes left | same weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {r.rank} | {r.killed_after_seconds:.1f} | {r.updates_before} | {r.exit_code} "
        f"| {r.seconds_to_end:.1f} | {r.num_left} | {'yes' if r.same_weights else 'NO'} |"
        for number, r in enumerate(rounds, start=1)
    ]
    return "\n".join(lines)


def main(values: list[str] | None = None) -> int:
    """Prints a line per round and the table; 0 when all rounds were good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--seed", type=int, help="Of ranks and times; another one each time when not given.")
    parser.add_argument(
        "--output_dir", type=os.path.expanduser, default="results/kill_rounds", help="For inputs, runs and logs."
    )
    arguments = parser.parse_args(values)
    random.seed(arguments.seed)
    folder = pathlib.Path(arguments.output_dir).resolve()
    shutil.rmtree(folder / "undisturbed", ignore_errors=True)
    inputs.make_shards(str(folder / "shards"), "wiki", 128, 20, 256)
    log = folder / "undisturbed.log"
    whole = ranks.run(command(folder, folder / "undisturbed", arguments), log, 600, NP=str(arguments.ranks))
    if whole.code != 0:
        raise RuntimeError(f"the undisturbed run ended with {whole.code}:\n{whole.err[-2000:]}")
    print(f"undisturbed: {arguments.updates} updates on {arguments.ranks} ranks in {whole.seconds:.1f} s", flush=True)
    rounds = []
    for number in range(1, arguments.rounds + 1):
        rounds.append(disturbed(folder, number, 0.9 * whole.seconds, arguments))
        print(f"round {number}: {'good' if rounds[-1].is_good else 'BAD'} {rounds[-1]}", flush=True)
    print(f"\n{_table(rounds)}\n\n{sum(r.is_good for r in rounds)} of {len(rounds)} rounds were good")
    return 0 if all(r.is_good for r in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
