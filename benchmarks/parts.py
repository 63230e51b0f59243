"""Single parts beside what they replace, in turns: `python -m benchmarks.parts optimizer|input|packing|allreduce`.

Each prints a table of medians. `allreduce` is started as `mpirun -np N python -m benchmarks.parts allreduce`.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Callable
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks import inputs
from benchmarks.peers import google_optimizers
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.data import packing, schema
from bert_pretrain.data.dataset import Lengths, Source
from bert_pretrain.data.dynamic_masking import DynamicMasking
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.masking import MaskingRule
from bert_pretrain.data.schema import Limits
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.distributed.connection import connected
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.model import variables
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import device

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs" / "model"
_ROUNDS = 15


def in_turns(parts: dict[str, Callable[[], object]], rounds: int = _ROUNDS) -> dict[str, list[float]]:
    """Seconds of each, A B A B ..., after a first run of each that is not counted."""
    seconds = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            begin = time.perf_counter()
            part()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def table(title: str, seconds: dict[str, list[float]], units: float, unit: str) -> None:
    """Prints medians, spread, units a second, and the ratio to the last named, which is the one replaced."""
    last = statistics.median(list(seconds.values())[-1])
    print(f"{title}\n\n| part | ms | least - most | {unit}/s | times the last |\n|---|---|---|---|---|")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"| {name} | {1e3 * median:.1f} | {1e3 * min(values):.1f} - {1e3 * max(values):.1f} "
            f"| {units / median:,.0f} | {last / median:.2f} |",
            flush=True,
        )


def optimizer() -> None:
    """The update of BERT-base's variables, clipping included, against LAMB written as in MLPerf's reference."""
    shapes = variables.variable_shapes(ModelConfig.from_json(str(_CONFIGS / "base.json")))
    best = device.choose_device(DeviceConfig(), set()).backend
    backends = dict.fromkeys([best, Backend.XLA, Backend.PLAIN])
    parts = {}
    for name, build in (
        *((f"ours, {b.value}", lambda w, g, b=b: _ours(w, g, b)) for b in backends),
        ("reference", _reference),
    ):
        with tf.Graph().as_default():
            normal = tf.compat.v1.random_normal_initializer(stddev=0.02)
            weights = {n: tf.compat.v1.get_variable(n, s, initializer=normal) for n, s in shapes.items()}
            gradients = {n: tf.compat.v1.get_variable(f"{n}/g", s, initializer=normal) for n, s in shapes.items()}
            operation = build(weights, {n: g.read_value() for n, g in gradients.items()})
            session = tf.compat.v1.Session(config=_two_threads())
            session.run(tf.compat.v1.global_variables_initializer())
        parts[name] = lambda session=session, operation=operation: session.run(operation)
    table("LAMB, BERT-base, with the global norm", in_turns(parts), 1, "updates")


def _ours(weights: dict, gradients: dict, backend: Backend) -> tf.Operation:
    norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(gradient) for gradient in gradients.values()]))
    rule = Lamb(OptimConfig(), weights, backend)
    return rule.apply(gradients, tf.constant(1e-4), tf.minimum(1.0, 1.0 / norm))


def _reference(weights: dict, gradients: dict) -> tf.Operation:
    clipped, _ = tf.clip_by_global_norm(list(gradients.values()), 1.0)
    holder = mock.Mock(beta_1=0.9, beta_2=0.999, epsilon=1e-6, weight_decay_rate=0.01, learning_rate=1e-4)
    holder._get_variable_name = lambda name: name.rpartition(":")[0]
    holder._do_use_weight_decay = lambda name: not any(part in name for part in ("LayerNorm", "bias"))
    return google_optimizers.lamb(holder, zip(clipped, weights.values()))


def input() -> None:
    """Records of 512/76 through our input pipeline, bare framing, and DeepSparkHub's way of parsing."""
    with tempfile.TemporaryDirectory() as directory:
        paths = inputs.make_shards(directory, "wiki", 512, 76, 20_000)
        batch, steps = 96, 60
        pieces = {
            "ours: read, CRC, parse, check, pack": _our_input(paths, batch, pack=True),
            "ours without packing": _our_input(paths, batch, pack=False),
            "ours with dynamic masks": _our_input(paths, batch, pack=True, is_dynamic=True),
            "bare TFRecordDataset": lambda: tf.data.TFRecordDataset(paths).repeat().batch(batch).prefetch(4),
            "parse_single_example + map_and_batch": lambda: _seed_input(paths, batch),
        }
        parts = {name: _iterate(piece, steps) for name, piece in pieces.items()}
        table(f"{batch * steps} records of 512/76, batches of {batch}", in_turns(parts, 7), batch * steps, "records")


def _our_input(paths: list[str], batch: int, pack: bool, is_dynamic: bool = False) -> TrainingInput:
    source = Source(ShardIndex(paths), Lengths(512, 76), Limits(inputs.VOCAB_SIZE, 2))
    rule = MaskingRule(inputs.MASKED_SHARE, 76, inputs.MASK, np.arange(inputs.VOCAB_SIZE, dtype=np.int32))
    masking = DynamicMasking(rule, inputs.CLS, inputs.SEP, inputs.VOCAB_SIZE, seed=0)
    return TrainingInput(source, UpdateShape(batch, batch, pack), seed=0, masking=masking if is_dynamic else None)


def _seed_input(paths: list[str], batch: int) -> tf.data.Dataset:
    sizes = {"S": 512, "P": 76, "1": 1}
    features = {
        f.name: tf.io.FixedLenFeature([sizes[f.length]], tf.float32 if f.dtype is float else tf.int64)
        for f in schema.FEATURES
    }

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_single_example(record, features)
        return {name: tf.cast(v, tf.int32) if v.dtype == tf.int64 else v for name, v in parsed.items()}

    data = tf.data.TFRecordDataset(paths).repeat().shuffle(100)
    return data.apply(tf.data.experimental.map_and_batch(parse, batch, num_parallel_calls=4, drop_remainder=True))


def _iterate(piece: object, steps: int) -> Callable[[], None]:
    with tf.Graph().as_default() as graph:
        if isinstance(piece, TrainingInput):
            tensors, start = list(piece().values()), piece.initializer
        else:
            variant = tf.compat.v1.data.make_initializable_iterator(piece())
            tensors, start = tf.nest.flatten(variant.get_next()), variant.initializer
        # What arrives is used, but not carried to Python.
        used = tf.group(*tensors)
        session = tf.compat.v1.Session(graph=graph, config=_two_threads())
        session.run(start)

    def run() -> None:
        for _ in range(steps):
            session.run([tensors[0].op, used])

    return run


def packing_() -> None:
    """The packer alone: efficiency and milliseconds lengths as Wikipedia's."""
    histogram = json.loads(inputs.HISTOGRAM.read_text())["counts"]
    shares = np.array(histogram, np.float64) / sum(histogram)
    random = np.random.default_rng(1)
    print("| examples | rows' tokens in use | ms |\n|---|---|---|")
    for count in (6, 24, 32, 96, 512):
        used = computed = 0
        seconds = []
        for _ in range(1000):
            lengths = random.choice(np.arange(1, len(shares) + 1), count, p=shares).tolist()
            begin = time.perf_counter()
            layout = packing.pack_rows(lengths, 512)
            seconds.append(time.perf_counter() - begin)
            used, computed = used + sum(lengths), computed + len(layout.rows) * layout.width
        print(f"| {count} | {used / computed:.4f} | {1e3 * statistics.median(seconds):.3f} |")


def allreduce() -> None:
    """BERT-base's gradient over the ranks: our one grouped exchange, float32 and float16, and one for each variable."""
    with connected(True) as world:
        seconds = _exchanges(world)
        if world.is_root:
            table(f"440 MB of gradients over {world.size} ranks", seconds, 1, "updates")


def _exchanges(world: World) -> dict[str, list[float]]:
    shapes = variables.variable_shapes(ModelConfig.from_json(str(_CONFIGS / "base.json")))
    with tf.Graph().as_default():
        values = [tf.ones(shape) for shape in shapes.values()]
        parts = {"grouped, float16": world.allreduce(values, half=True), "grouped, float32": world.allreduce(values)}
        parts["one by one"] = [tensor for value in values for tensor in world.allreduce([value])]
        session = tf.compat.v1.Session(config=_two_threads())
        runs = {n: (lambda t=tensors: session.run([x.op for x in t])) for n, tensors in parts.items()}
        return in_turns(runs, 7)


def _two_threads() -> tf.compat.v1.ConfigProto:
    return tf.compat.v1.ConfigProto(intra_op_parallelism_threads=2, inter_op_parallelism_threads=1)


if __name__ == "__main__":
    {"optimizer": optimizer, "input": input, "packing": packing_, "allreduce": allreduce}[sys.argv[1]]()
