"""Ways to sum gradients over ranks, in turns, as whole jobs: python -m benchmarks.exchange --help.

One rank of two threads and two ranks of one thread make the same updates: Horovod over MPI and over Gloo, in float32,
in float16 (--allreduce_fp16) and in 64-bit integers (--rank_invariant), on one host and on two, which are network
namespaces on this machine (tests/hosts.py; left out where they cannot be made). "alone" is one sum of the model's
gradient by itself, the median of ten. "predicted" is the update of one rank plus that sum, because two ranks of one
thread have the two cores that one rank has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from typing import NamedTuple, Optional

import tensorflow as tf

from benchmarks import inputs
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.distributed import connection
from bert_pretrain.launch import launcher
from bert_pretrain.model import variables
from bert_pretrain.train import device
from tests import hosts
from tests.e2e import ranks

_ROOT = pathlib.Path(__file__).parents[1]
_SEQ_LENGTH, _PREDICTIONS = 512, 76


class Way(NamedTuple):
    """How a job sums its gradients."""

    num_ranks: int
    launcher: str = "mpi"
    dtype: str = "float32"  # of what is sent
    num_hosts: int = 1

    @property
    def name(self) -> str:
        if self.num_ranks == 1:
            return f"1 rank, {self.dtype}"
        return (
            f"{self.num_ranks} ranks, {self.launcher}, {self.dtype}, {self.num_hosts} host{'s'[: self.num_hosts - 1]}"
        )

    @property
    def flags(self) -> list[str]:
        return {"float32": [], "float16": ["--allreduce_fp16"], "int64": ["--rank_invariant"]}[self.dtype]


# Gloo over two hosts is not here: Horovod 0.28.1 ends with a segmentation fault between such namespaces.
WAYS = [Way(1), Way(1, dtype="int64"), Way(2, "gloo")] + [
    Way(2, dtype=dtype, num_hosts=num_hosts) for num_hosts in (1, 2) for dtype in ("float32", "float16", "int64")
]


class Bench:
    """Runs jobs of one model in one folder."""

    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path, made: Optional[hosts.Hosts]) -> None:
        self._arguments, self._folder, self._hosts = arguments, folder, made

    def update_seconds(self, way: Way) -> float:
        """The median of a job's updates, the first two left out."""
        output_dir = self._folder / "run"
        shutil.rmtree(output_dir, ignore_errors=True)
        arguments = self._arguments
        num_micro_batches = arguments.micro_batches // way.num_ranks
        flags = training_flags(arguments, self._folder / "shards", output_dir, arguments.batch_size, num_micro_batches)
        self._run(way, launcher.TRAINER, [*flags, "--lr_scaling=none", *way.flags])
        return json.loads((output_dir / "results.json").read_text())["step_seconds"]["median"]

    def alone_seconds(self, way: Way) -> float:
        """One sum of the model's gradient by itself."""
        if way.num_ranks == 1:
            return 0.0
        answer = self._folder / "alone.json"
        self._run(way, "benchmarks.exchange", [f"--model={self._arguments.model}", f"--alone={way.dtype}:{answer}"])
        return json.loads(answer.read_text())["seconds"]

    def _run(self, way: Way, module: str, flags: list[str]) -> None:
        environ = {"HOROVOD_LAUNCHER": way.launcher, "NP": str(way.num_ranks)}
        if way.num_hosts > 1:
            environ.update(HOSTFILE=self._hosts.hostfile(), PATH=self._hosts.path)
        machine = launcher.LocalMachine(num_cores=2 // way.num_hosts, num_gpus=0, is_root=os.geteuid() == 0)
        command, added = launcher.launch_command([], {**os.environ, **environ}, machine)
        if way.num_ranks == 1:
            command = [sys.executable, "-m", launcher.TRAINER, "--intra_op_threads=2"]
        start = command.index(launcher.TRAINER)
        common = command[start + 1 :] if module == launcher.TRAINER else []
        command = [*command[:start], module, *common, *flags]
        if way.num_hosts > 1:
            command = self._hosts.all[0].inside(*command)
        ended = ranks.run(command, self._folder / "log", 3600, **environ, **added)
        if ended.code != 0:
            raise RuntimeError(f"{way.name} ended with {ended.code}:\n{ended.err[-2000:]}")


def training_flags(
    arguments: argparse.Namespace,
    shards: pathlib.Path,
    output_dir: pathlib.Path,
    batch_size: int,
    num_micro_batches: int,
) -> list[str]:
    """The trainer's flags of a job that is timed: arguments.updates updates of arguments.model without a checkpoint."""
    return [
        "--do_train", f"--input_files_dir={shards}", f"--bert_config_file={_model(arguments.model)}",
        f"--output_dir={output_dir}", f"--train_batch_size={batch_size}", "--num_warmup_steps=10",
        f"--num_accumulation_steps={num_micro_batches}", f"--num_train_steps={arguments.updates}",
        "--save_checkpoints_steps=1000000",
    ]  # fmt: skip


def time_alone(model: str, dtype: str, answer: str) -> None:
    """On each rank. Root writes the median seconds of one sum of the model's gradient, and why no GPU sums it."""
    shapes = variables.variable_shapes(ModelConfig.from_json(_model(model))).values()
    seconds = []
    with connection.connected(use_horovod=True) as job, tf.Graph().as_default():
        # Variables and a result, because a graph optimizer sums constants once, and drops what nobody reads.
        kind = tf.int64 if dtype == "int64" else tf.float32
        terms = [tf.Variable(tf.zeros(shape, kind), use_resource=True) for shape in shapes]
        sums = job.allreduce([term.read_value() for term in terms], **({"half": True} if dtype == "float16" else {}))
        first = tf.add_n([tf.reshape(total, [-1])[0] for total in sums])
        settings = DeviceConfig(intra_op_threads=1, native_kernels=False)
        chosen = device.choose_device(settings, (), job.local_rank, job.local_size)
        options = device.session_config(settings, chosen.gpu, job.local_size)
        with tf.compat.v1.Session(config=options) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for _ in range(12):
                begin = time.perf_counter()
                session.run(first)
                seconds.append(time.perf_counter() - begin)
        if job.is_root:
            found = {"seconds": statistics.median(seconds[2:]), "why_through_hosts": job.why_through_hosts}
            pathlib.Path(answer).write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="a file of configs/model")
    parser.add_argument("--lengths", default="wiki", choices=["full", "wiki"])
    parser.add_argument("--ways", default="", help="only ways whose names have one of these, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=10, help="of each job; the first two are not counted")
    parser.add_argument("--micro_batches", type=int, default=4, help="of an update, over all ranks")
    parser.add_argument("--batch_size", type=int, default=6, help="examples of a micro-batch")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # DTYPE:FILE, on the ranks of a job
    arguments = parser.parse_args()
    if arguments.alone:
        time_alone(arguments.model, *arguments.alone.split(":", 1))
        return
    wanted = arguments.ways.split(";")
    ways = [way for way in WAYS if any(part in way.name for part in wanted)]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exchange-")))
        made = None
        if any(way.num_hosts > 1 for way in ways) and (reason := hosts.why_not()):
            print(f"two hosts are left out: {reason}", file=sys.stderr)
            ways = [way for way in ways if way.num_hosts == 1]
        elif any(way.num_hosts > 1 for way in ways):
            made = stack.enter_context(hosts.made(2, folder / "hosts"))
        inputs.make_shards(str(folder / "shards"), arguments.lengths, _SEQ_LENGTH, _PREDICTIONS, 1024)
        print(table(Bench(arguments, folder, made), ways, arguments))


def table(bench: Bench, ways: list[Way], arguments: argparse.Namespace) -> str:
    """Measures all ways in turns; Markdown."""
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(arguments.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            seconds[way].append(bench.update_seconds(way))
            print(f"round {number + 1}, {way.name}: {seconds[way][-1]:.3f} s", file=sys.stderr, flush=True)
    first, one_rank = statistics.median(seconds[ways[0]]), statistics.median(seconds.get(Way(1), [0.0]))
    lines = [
        f"{arguments.model}-512, {arguments.lengths} lengths, updates of {arguments.micro_batches} micro-batches of "
        f"{arguments.batch_size} examples, {arguments.rounds} rounds of {arguments.updates} updates\n",
        "| way | update s | least - most | of the first | of float32 | predicted | alone s |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        median, alone = statistics.median(seconds[way]), bench.alone_seconds(way)
        float32 = statistics.median(seconds.get(way._replace(dtype="float32"), [median]))
        predicted = f"{one_rank + alone:.3f}" if way.num_ranks > 1 and one_rank else ""
        lines.append(
            f"| {way.name} | {median:.3f} | {min(seconds[way]):.3f} - {max(seconds[way]):.3f} "
            f"| {median / first:.3f} | {median / float32:.3f} | {predicted} | {alone:.3f} |"
        )
    return "\n".join(lines)


def _model(name: str) -> str:
    return f"{_ROOT}/configs/model/{name}.json"


if __name__ == "__main__":
    main()
