"""Updates of the graph that a run builds, with its checkpoint writer and evaluation: where it lies, how fast it is."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from benchmarks import inputs
from benchmarks.gpu_check.child import Report, table
from benchmarks.gpu_check.start import device_settings
from bert_pretrain.checkpoints.resume import load_previous_run, make_output_dir
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.distributed.world import World
from bert_pretrain.mlperf.mllog import MlperfLog
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.run_files.results import Outcome
from bert_pretrain.tensorflow_compat import estimator
from bert_pretrain.tensorflow_compat.typed import SessionRunContext, SessionRunHook
from bert_pretrain.train import device
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.hooks import TrainingRun
from bert_pretrain.train.job import Job, describe_job, evaluation_input, open_on_all_ranks, training_input
from bert_pretrain.train.model_fn import make_model_fn
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput, peak_flops, training_flops

MODELS = pathlib.Path(__file__).parents[2] / "configs" / "model"
LARGE_BYTES = 65_536  # of a tensor that is listed where it crosses; statistics and seeds are smaller
_BYTES_A_TOKEN = 8  # of a tensor that may cross: token ids have four, activations and masks hundreds
WARM_UP = 2  # updates that are not timed
_PREDICTIONS = {128: 20, 512: 76}  # of a record of so many tokens
_COMPUTES = ("MatMul", "BatchMatMul", "Einsum", "XlaLaunch", "PartitionedCall", "BertPretrain")  # parts of names
_STORES = ("VarHandleOp", "ReadVariableOp", "Assign", "ResourceGather", "ResourceApply")
_FLOATS = (tf.float16, tf.bfloat16, tf.float32)


class Measured(NamedTuple):
    """Updates of a run."""

    job: Job
    seconds: list[float]  # of each update
    sums: list[Statistics]  # of each update
    trace: tf.compat.v1.RunMetadata  # of the update after the warm-up, which is not among the timed


def measure_updates(
    report: Report,
    name: str,
    model: str,
    seq_length: int,
    rows: int,
    examples: int,
    micro_batches: int,
    updates: int,
    device_name: str,
    is_first: bool,
) -> None:
    """The part `name`, the speed of `updates` updates; where is_first, after the parts warm-up and placement.

    examples: of a micro-batch, with Wikipedia's lengths, for about so many rows of seq_length tokens.
    """
    ended = [time.monotonic()]

    def warmed_up(seconds: float) -> None:
        ended.append(time.monotonic())
        if is_first:
            start = ended[-1] - ended[0] - seconds
            figures = f"graph and session {start:.0f} s, {WARM_UP} updates {seconds:.0f} s"
            report("warm-up", figures=f"{figures}, with what CUDA and XLA compile in them")

    with tempfile.TemporaryDirectory() as folder:
        for name_of_data, num_records in (("train", 4096), ("eval", 512)):
            predictions = _PREDICTIONS[seq_length]
            inputs.make_shards(f"{folder}/{name_of_data}", "wiki", seq_length, predictions, num_records)
        config = Config(
            RunConfig(
                bert_config_file=str(MODELS / f"{model}.json"), output_dir=f"{folder}/run", do_train=True, do_eval=True
            ),
            DataConfig(
                input_files_dir=f"{folder}/train",
                eval_files_dir=f"{folder}/eval",
                train_batch_size=examples,
                eval_batch_size=examples,
            ),
            OptimConfig(num_train_steps=10**6, num_accumulation_steps=micro_batches),
            DeviceConfig(**device_settings(device_name)),
        )
        found = run_updates(config, updates, warmed_up)
    if is_first:
        report_placement(report, found.trace, int(found.sums[WARM_UP].computed), found.job.device.is_gpu)
    report_speed(report, name, found, ended[1] - ended[0], micro_batches, rows)


class _EnoughError(Exception):
    """All updates are measured: nothing is to be evaluated or saved."""


class _Stopwatch(SessionRunHook):
    """Times each update's session.run, and traces the one after the warm-up."""

    def __init__(self, num_updates: int, warmed_up: Callable[[float], None]) -> None:
        self._num_updates, self._warmed_up = num_updates, warmed_up
        self.seconds: list[float] = []
        self.trace: Optional[tf.compat.v1.RunMetadata] = None

    def before_run(self, run_context: SessionRunContext) -> Any:
        if len(self.seconds) == self._num_updates:
            raise _EnoughError
        if len(self.seconds) == WARM_UP:
            self._warmed_up(sum(self.seconds))
        self._begin = time.perf_counter()
        if len(self.seconds) != WARM_UP:
            return None
        level = tf.compat.v1.RunOptions.FULL_TRACE
        options = tf.compat.v1.RunOptions(trace_level=level, output_partition_graphs=True)
        return tf.compat.v1.train.SessionRunArgs([], options=options)

    def after_run(self, run_context: SessionRunContext, run_values: Any) -> None:
        if len(self.seconds) == WARM_UP:
            self.trace = run_values.run_metadata
        self.seconds.append(time.perf_counter() - self._begin)


class _Recorded(Throughput):
    """Keeps the statistics of each update."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[Statistics] = []

    def add_update(self, sums: Statistics, input_wait_seconds: float) -> None:
        super().add_update(sums, input_wait_seconds)
        self.sums.append(Statistics(*np.asarray(sums, np.float64)))  # NumPy 2 would compute FLOPs in float32


def run_updates(config: Config, updates: int, warmed_up: Callable[[float], None] = lambda seconds: None) -> Measured:
    """Trains as train.loop does, up to WARM_UP + 1 + updates, without evaluating or saving.

    warmed_up is told the seconds of the first WARM_UP updates when they are done.
    """
    job = open_on_all_ranks(config, World())
    make_output_dir(config.run.output_dir)
    previous = load_previous_run(config.run, job.model, describe_job(job))
    examples, throughput = training_input(job, first_update=0), _Recorded()
    with contextlib.closing(RunLogger(config, True, MlperfLog())) as logger, CheckpointWriter(config.run, ()) as writer:
        run = TrainingRun(job, previous, logger, examples, evaluation_input(job), writer, throughput, Outcome())
        settings = estimator.RunConfig(
            save_checkpoints_steps=None, save_checkpoints_secs=None, save_summary_steps=None, log_step_count_steps=None,
            session_config=device.session_config(config.device, job.device.gpu),
        )  # fmt: skip
        trainer = estimator.Estimator(make_model_fn(run), f"{config.run.output_dir}/none", settings)
        watch = _Stopwatch(WARM_UP + 1 + updates, warmed_up)
        with contextlib.suppress(_EnoughError):
            trainer.train(examples, hooks=[watch], max_steps=config.optim.num_train_steps)
    assert watch.trace is not None
    return Measured(job, watch.seconds, throughput.sums, watch.trace)


# --- Placement ---

IsHost = Callable[[Any], bool]  # whether an operation, a NodeDef, lies on the host


def _is_on_cpu(node: Any) -> bool:
    return "CPU" in node.device


class Crossing(NamedTuple):
    """A tensor of an update that is written on one side of the bus and read on the other."""

    name: str
    to_host: bool
    bytes: int  # in all executions of the update


def report_placement(
    report: Report, trace: tf.compat.v1.RunMetadata, num_tokens: int, is_gpu: bool, is_host: IsHost = _is_on_cpu
) -> None:
    """What lies on the host that belongs on the GPU, and what crosses. num_tokens: of the update, padding included."""
    hosted = misplaced(trace.partition_graphs, is_host)
    num_operations = sum(len(one.node) for one in trace.partition_graphs)
    crossed = sorted(crossings(trace, is_host), key=lambda one: -one.bytes)
    large = [one for one in crossed if one.bytes > LARGE_BYTES]
    total = {to_host: sum(one.bytes for one in crossed if one.to_host == to_host) for to_host in (False, True)}
    figures = (
        f"{num_operations:,} operations; variables, products and programs on the host: {len(hosted)}; to the GPU "
        f"{total[False] / 1e3:.1f} kB, to the host {total[True] / 1e3:.1f} kB an update"
    )
    if not is_gpu:
        report("placement", figures=f"traced: {num_operations:,} operations", not_run="only a GPU shows it")
        return
    rows = [[one.name[-70:], "host" if one.to_host else "GPU", f"{one.bytes:,}"] for one in large[:5]]
    wrong = [f"on the host: {', '.join(hosted[:3])}"] if hosted else []
    most = max(LARGE_BYTES, _BYTES_A_TOKEN * num_tokens)
    if large and large[0].bytes > most:
        wrong.append(f"{large[0].name}, which crosses, has {large[0].bytes:,} bytes; ids have at most {most:,}")
    columns = ["tensor", "to", "bytes an update"]
    crossing = table("placement: the largest tensors above 64 kB that cross", columns, rows) if rows else None
    report("placement", figures=figures, wrong=wrong, table=crossing)


def misplaced(graphs: Iterable[Any], is_host: IsHost = _is_on_cpu) -> list[str]:
    """`operation (type)` of variables, products, the optimizer and XLA's programs that lie on the host."""
    return [
        f"{node.name} ({node.op})"
        for graph in graphs
        for node in graph.node
        if is_host(node) and (_is_one(node, _COMPUTES) or (_is_one(node, _STORES) and _is_float(node)))
    ]


def _is_one(node: Any, names: tuple[str, ...]) -> bool:
    return any(name in node.op for name in names)


def _is_float(node: Any) -> bool:
    return "dtype" not in node.attr or tf.as_dtype(node.attr["dtype"].type) in _FLOATS


def crossings(trace: tf.compat.v1.RunMetadata, is_host: IsHost = _is_on_cpu) -> Iterator[Crossing]:
    """The tensors that a traced update sends between the memory of the host and the GPU's.

    Also an operation of the GPU may read or write host memory: the partition has _HostSend or _HostRecv there.
    """
    sizes: dict[tuple[str, int], int] = collections.defaultdict(int)
    for stats in trace.step_stats.dev_stats:
        for node in stats.node_stats:
            for output in node.output:
                sizes[node.node_name, output.slot] += _num_bytes(output.tensor_description)
    nodes = [node for graph in trace.partition_graphs for node in graph.node]
    in_host_memory = {
        (node.attr["tensor_name"].s, node.attr["send_device"].s, node.attr["recv_device"].s): is_host(node)
        or node.op == "_HostRecv"
        for node in nodes
        if node.op in ("_Recv", "_HostRecv")
    }
    for node in nodes:
        if node.op not in ("_Send", "_HostSend"):
            continue
        key = node.attr["tensor_name"].s, node.attr["send_device"].s, node.attr["recv_device"].s
        to_host = in_host_memory.get(key)
        source, _, slot = node.input[0].partition(":")
        if to_host is not None and to_host != (is_host(node) or node.op == "_HostSend"):
            yield Crossing(node.input[0], to_host, sizes[source, int(slot or 0)])


def _num_bytes(tensor: Any) -> int:
    dtype = tf.as_dtype(tensor.dtype)
    if dtype in (tf.resource, tf.variant, tf.string):
        return 0
    return dtype.size * int(np.prod([dim.size for dim in tensor.shape.dim], dtype=np.int64))


# --- Speed and profile ---


def report_speed(
    report: Report, name: str, found: Measured, start_seconds: float, micro_batches: int, wanted_rows: int
) -> None:
    """Rows and Wikipedia examples a second, memory, utilization; and the kernels of the traced update."""
    job = found.job
    seconds, sums = found.seconds[WARM_UP + 1 :], found.sums[WARM_UP + 1 :]
    config = device.session_config(job.config.device, job.device.gpu)
    peak = peak_flops(job.device.name, job.device.is_gpu, None, config, job.device.compute_dtype)
    length = job.training_source.lengths.seq_length

    def rate(amount: Callable[[Statistics], float]) -> float:
        """A second: the median, because XLA may compile in some update."""
        return float(np.median([amount(one) / each for one, each in zip(sums, seconds)]))

    values = {
        "micro_batches": micro_batches,
        "wanted_rows": wanted_rows,
        "rows": float(np.median([one.computed for one in sums])) / length,
        "update_seconds": float(np.median(seconds)),
        "rows_per_second": rate(lambda one: one.computed / length),
        "examples_per_second": rate(lambda one: one.examples),
        "utilization": rate(lambda one: training_flops(one, job.model)) / peak if peak else None,
        "memory_bytes": _memory_bytes(job),
        "start_seconds": start_seconds,
        "trace": profile(found.trace),
    }
    utilization = f"{values['utilization']:.1%} of {peak / 1e12:.3g} TFLOP/s" if peak else "peak unknown"
    memory = (
        f"{values['memory_bytes'] / 2**30:.1f} GiB of the GPU" if values["memory_bytes"] else "GPU's memory not run"
    )
    figures = (
        f"{values['rows_per_second']:.4g} rows/s, {values['examples_per_second']:.4g} Wikipedia examples/s in "
        f"{job.device.compute_dtype.name}; utilization {utilization}; {memory}"
    )
    report(name, figures=figures, **values)


def profile(trace: tf.compat.v1.RunMetadata) -> dict[str, Any]:
    """Kernels of a traced session.run, the longest first: [name, an operation, launches, microseconds].

    Those of GPUs, which TensorFlow lists as /device:GPU:0/stream:all; without a GPU, the operations of the CPU.
    """
    devices = trace.step_stats.dev_stats
    streams = [one for one in devices if one.device.endswith("/stream:all")]
    launches: collections.Counter[str] = collections.Counter()
    micros: collections.Counter[str] = collections.Counter()
    operations: dict[str, str] = {}
    for node in (node for stats in streams or devices for node in stats.node_stats):
        label = node.timeline_label
        kernel = label.partition(" regs:")[0] if streams else label.partition(" = ")[2].partition("(")[0]
        kernel = kernel or node.node_name
        launches[kernel] += 1
        micros[kernel] += node.op_end_rel_micros - node.op_start_rel_micros
        operations.setdefault(kernel, node.node_name)
    kernels = [[name, operations[name], launches[name], each] for name, each in micros.most_common(30)]
    is_gpu, total = bool(streams), sum(micros.values())
    return {"is_gpu": is_gpu, "launches": sum(launches.values()), "micros": total, "kernels": kernels}


def _memory_bytes(job: Job) -> Optional[int]:
    """The most that TensorFlow's allocator has held of the GPU."""
    if not job.device.is_gpu:
        return None
    try:
        return tf.config.experimental.get_memory_info(f"GPU:{job.device.gpu}")["peak"]
    except (ValueError, RuntimeError, tf.errors.OpError):  # a vendor's allocator may count nothing
        return None
