"""The graph of a run as a GPU would get it, checked node by node against the kernels that TensorFlow's GPU builds have.

tests/golden/gpu_kernels.py says where the tables come from. TensorFlow's placer puts an operation on the GPU where a
kernel for its dtypes is registered, else on the host; a tensor that one of them writes to the memory of one device and
another reads in that of the other crosses the bus.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.train import device
from bert_pretrain.train.device import Device, DtypeOffer
from bert_pretrain.train.hooks import TrainingHook
from tests.e2e import runs
from tests.train.small import MODEL, write_shards

TABLES = Path(__file__).parents[1] / "golden" / "gpu_kernels"
RELEASES = sorted(path.stem for path in TABLES.glob("*.json"))
MAX_BYTES = 65_536  # of a tensor that crosses between host and device
# An update's activations are larger than MAX_BYTES, its token ids smaller.
WIDE = dataclasses.replace(
    MODEL, vocab_size=500, hidden_size=64, intermediate_size=128, hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1, max_position_embeddings=128,
)  # fmt: skip
_CALLS = {"If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "While"}
# They read records, or ask the process whether it was told to stop: on the host, with tensors of a few bytes.
_OF_THE_HOST = {"IteratorGetNext", "IteratorV2", "PyFunc"}


class Captured(NamedTuple):
    """What a run would execute."""

    graph: tf.Graph
    update: list[tf.Tensor]
    evaluation: list[tf.Tensor]
    snapshot: list[tf.Tensor]


class _BuiltError(Exception):
    """The graph is complete."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("gpu_graph")
    lengths = {"seq_length": 128, "max_predictions": 20}
    return {
        "input_files_dir": write_shards(folder / "train", 0, [64], WIDE, **lengths),
        "eval_files_dir": write_shards(folder / "eval", 1, [32], WIDE, **lengths),
        "bert_config_file": runs.write_model(folder / "bert_config.json", WIDE),
    }


def capture(data: dict[str, str], output_dir: Path, backend: Backend, dtype: tf.DType, **settings: Any) -> Captured:
    """The graph that a run builds where choose_device finds a GPU."""
    captured = []

    def take_graph(hooks: Sequence[Any], **_: Any) -> None:
        (hook,) = (hook for hook in hooks if isinstance(hook, TrainingHook))
        hook.begin()
        evaluation = [hook._evaluation._sums, hook._evaluation._token_counts]
        graph = tf.compat.v1.get_default_graph()
        captured.append(Captured(graph, [*hook._values], evaluation, hook._writer._snapshot._copies))
        raise _BuiltError

    chosen = Device("NVIDIA H200", True, 0, dtype, backend, [], DtypeOffer((dtype.name,)))
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(device, "choose_device", lambda *_: chosen)
        patches.setattr(tf.compat.v1.train, "MonitoredTrainingSession", take_graph)
        values = {
            **runs.settings(output_dir=str(output_dir), train_batch_size=16, num_accumulation_steps=1),
            **data, "do_eval": True, **settings,
        }  # fmt: skip
        with pytest.raises(_BuiltError):
            runs.train(**values)
    return captured[0]


# --- The rules of TensorFlow's placer ---


class Placement(NamedTuple):
    """Where an operation runs, and which of its tensors lie in host memory."""

    is_host: bool
    host_inputs: list[bool]
    host_outputs: list[bool]
    missing: str = ""  # the kernel that the GPU lacks


class Crossing(NamedTuple):
    """A tensor that is written on one side and read on the other."""

    tensor: tf.Tensor
    reader: tf.Operation
    to_host: bool


def read_table(release: str) -> dict[str, Any]:
    """See tests/golden/gpu_kernels.py."""
    return json.loads((TABLES / f"{release}.json").read_text())


def find_kernel(table: dict[str, Any], node: Any, kind: str = "GPU") -> Optional[dict[str, Any]]:
    """The registered kernel of a NodeDef with the highest priority; None without one."""
    assert node.op in table, f"{node.op} is not in the tables; see tests/golden/gpu_kernels.py"
    found = [
        one for one in table[node.op].get(kind, []) if all(_allows(node, *types) for types in one["types"].items())
    ]
    return max(found, key=lambda one: one["priority"], default=None)


def _allows(node: Any, name: str, dtypes: Sequence[str]) -> bool:
    if name not in node.attr:
        return False
    value = node.attr[name]
    numbers = [value.type] if value.WhichOneof("value") == "type" else value.list.type
    return all(tf.as_dtype(number).name in dtypes for number in numbers)


def _argument_names(definition: Iterable[Any], node: Any) -> list[str]:
    """The argument's name of each tensor."""
    names = []
    for argument in definition:
        count = 1
        if argument.number_attr:
            count = node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(node.attr[argument.type_list_attr].list.type)
        names += [argument.name] * count
    return names


def place(table: dict[str, Any], operation: tf.Operation) -> Placement:
    """Where one operation runs."""
    node, inputs, outputs = operation.node_def, len(operation.inputs), len(operation.outputs)
    on_host = Placement(True, [True] * inputs, [True] * outputs)
    if "CPU" in node.device.upper() or node.op in _OF_THE_HOST:
        return on_host
    if node.op == "Placeholder":  # an argument of a function
        return Placement(False, [], [False])
    if node.op in _CALLS:
        return Placement(False, [node.op == "If" and number == 0 for number in range(inputs)], [False] * outputs)
    kernel = find_kernel(table, node)
    if kernel is None:
        return on_host._replace(missing=f"{node.op} {_dtypes(operation)}")
    definition = operation.op_def
    host = set(kernel["host"])
    return Placement(
        False,
        [name in host for name in _argument_names(definition.input_arg, node)],
        [name in host for name in _argument_names(definition.output_arg, node)],
    )


def _dtypes(operation: tf.Operation) -> str:
    return ", ".join(tensor.dtype.base_dtype.name for tensor in (*operation.inputs, *operation.outputs))


def ancestors(fetches: Iterable[Any]) -> list[tf.Operation]:
    """All operations that run for these fetches."""
    found: dict[tf.Operation, None] = {}
    waiting = [getattr(fetch, "op", fetch) for fetch in fetches]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found[operation] = None
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return list(found)


def crossings(placements: dict[tf.Operation, Placement]) -> Iterator[Crossing]:
    """The tensors that cross, once for each reader."""
    for operation, placement in placements.items():
        for tensor, to_host in zip(operation.inputs, placement.host_inputs):
            is_data = tensor.dtype.base_dtype not in (tf.resource, tf.variant, tf.string)
            if is_data and placements[tensor.op].host_outputs[tensor.value_index] != to_host:
                yield Crossing(tensor, operation, to_host)


def branches(graph: tf.Graph, operations: Iterable[tf.Operation]) -> Iterator[list[tf.Operation]]:
    """The operations of the functions of tf.cond and tf.while_loop, with shapes, those inside of others included."""
    library = {function.signature.name: function for function in graph.as_graph_def().library.function}
    for operation in operations:
        names = [value.func.name for value in operation.node_def.attr.values() if value.WhichOneof("value") == "func"]
        if operation.type not in _CALLS or any(_is_compiled(library[name]) for name in names):
            continue
        shapes = [tensor.shape for tensor in operation.inputs]
        with graph.as_default():
            for name in names:
                takes = shapes[-len(library[name].signature.input_arg) :]
                body = function_def_to_graph(library[name], takes, include_library_functions=True)
                yield body.get_operations()
                yield from branches(graph, body.get_operations())


def _is_compiled(function: Any) -> bool:
    return function.attr["_XlaMustCompile"].b


# --- What holds of every run's graph ---

CONFIGURATIONS = {
    "xla-bfloat16": (Backend.XLA_LAYERS, tf.bfloat16, {}),
    "xla-float16": (Backend.XLA_LAYERS, tf.float16, {}),
    "xla-float32-recompute": (Backend.XLA_LAYERS, tf.float32, {"recompute": True}),
    "plain-float16": (Backend.PLAIN, tf.float16, {}),
    "plain-float32-adam": (Backend.PLAIN, tf.float32, {"optimizer_type": "adam"}),
}


_SLOW = ("xla-float16", "xla-float32-recompute", "plain-float32-adam")  # the others have most of their operations


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in _SLOW)) for name in CONFIGURATIONS]
)
def captured(request: pytest.FixtureRequest, data, tmp_path_factory) -> tuple[Captured, Backend, tf.DType]:
    backend, dtype, settings = CONFIGURATIONS[request.param]
    return capture(data, tmp_path_factory.mktemp("run"), backend, dtype, **settings), backend, dtype


def tables_of(backend: Backend, dtype: tf.DType) -> list[str]:
    """The releases with which a GPU gets this backend and dtype; 2.6 multiplies in bfloat16 on no GPU."""
    return [release for release in RELEASES if dtype != tf.bfloat16 or release != "2.6.5"]


@pytest.mark.parametrize("what", ["update", "evaluation", "snapshot"])
@pytest.mark.parametrize("release", RELEASES)
def test_every_operation_has_a_kernel_and_no_large_tensor_crosses(captured, release: str, what: str) -> None:
    run, backend, dtype = captured
    if release not in tables_of(backend, dtype):
        pytest.skip(f"{release} has no {dtype.name} products on GPUs")
    table, operations = read_table(release), ancestors(getattr(run, what))
    placements = {operation: place(table, operation) for operation in operations}
    assert not {placement.missing for placement in placements.values()} - {""}
    found = [one for one in crossings(placements) if one.reader.type != "DeepCopy"]  # a snapshot is for the host
    sizes = measure(run.graph, [one.tensor for one in found])
    large = {one.tensor.name: size for one, size in zip(found, sizes) if size > MAX_BYTES}
    assert not large, large
    for body in branches(run.graph, operations):
        placements = {operation: place(table, operation) for operation in body}
        assert not {placement.missing for placement in placements.values()} - {""}
        assert all(num_bytes(one.tensor.shape, one.tensor.dtype) <= MAX_BYTES for one in crossings(placements))


@pytest.mark.parametrize("release", RELEASES)
def test_xla_compiles_every_operation_of_its_programs_for_gpus(captured, release: str) -> None:
    run, backend, dtype = captured
    if release not in tables_of(backend, dtype):
        pytest.skip(f"{release} has no {dtype.name} products on GPUs")
    table, programs = read_table(release), 0
    for function in run.graph.as_graph_def().library.function:
        if _is_compiled(function):
            programs += 1
            lacking = [node.op for node in function.node_def if find_kernel(table, node, "XLA_GPU_JIT") is None]
            assert not lacking, function.signature.name
    assert bool(programs) == backend.is_compiled


def test_a_layer_keeps_for_its_gradient_what_that_reads(captured) -> None:
    """Numbers alone, no axes or shapes, which a program takes from the host; and each tensor once."""
    run, backend, _ = captured
    kept = [
        function for function in run.graph.as_graph_def().library.function if "__forward_" in function.signature.name
    ]
    assert bool(kept) == (backend is Backend.XLA_LAYERS)
    for function in kept:
        dtypes = {tf.as_dtype(output.type) for output in function.signature.output_arg}
        assert dtypes <= {tf.float32, tf.float16, tf.bfloat16, tf.uint32}
        assert len({*function.ret.values()}) == len(function.ret)
        assert len(function.ret) <= 28


def test_variables_stay_on_the_gpu(data: dict[str, str], tmp_path: Path) -> None:
    """By TensorFlow's own placer: a second CPU stands for the host, the first for the GPU."""
    with pytest.MonkeyPatch.context() as patches:
        real = tf.device
        patches.setattr(tf, "device", lambda name: real("/cpu:1" if name == "/cpu:0" else name))
        run = capture(data, tmp_path, Backend.PLAIN, tf.float32)
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2}, intra_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    options, told = tf.compat.v1.RunOptions(output_partition_graphs=True), tf.compat.v1.RunMetadata()
    with run.graph.as_default(), tf.compat.v1.Session(config=config) as session:
        session.run([tf.compat.v1.global_variables_initializer()])
        session.run([one for one in run.graph.get_operations() if one.type == "MakeIterator"])
        session.run(run.update, options=options, run_metadata=told)
    places = {
        (node.op, node.device[-1]) for graph in told.partition_graphs for node in graph.node
        if node.op in ("VarHandleOp", "ReadVariableOp", "AssignVariableOp", "MatMul", "_MklMatMul")
    }  # fmt: skip
    assert {device for _, device in places} == {"0"}


# Operations that hand on memory, or decide what runs, without a kernel on the GPU.
_FREE = {
    "Assign", "AssignVariableOp", "Bitcast", "Const", "EnsureShape", "ExpandDims", "Identity", "IdentityN", "If",
    "NoOp", "Placeholder", "PreventGradient", "ReadVariableOp", "Reshape", "Shape", "Size", "Squeeze", "StopGradient",
    "VarHandleOp",
}  # fmt: skip


def count_launches(table: dict[str, Any], operations: Iterable[tf.Operation]) -> int:
    """Operations that start a kernel on the GPU. A program of XLA counts once."""
    return sum(
        operation.type not in _FREE and not all(place(table, operation).host_outputs or [True])
        for operation in operations
    )


@pytest.mark.slow
def test_an_update_of_24_layers_starts_few_kernels(data: dict[str, str], tmp_path: Path) -> None:
    """Starting one takes a host some ten microseconds; BERT-large computes a row in a few thousand."""
    deep = dataclasses.replace(WIDE, num_hidden_layers=24)
    model = {"bert_config_file": runs.write_model(tmp_path / "bert_config.json", deep)}
    run = capture({**data, **model}, tmp_path / "run", Backend.XLA_LAYERS, tf.bfloat16)
    table, operations = read_table("2.21.0"), ancestors(run.update)
    assert count_launches(table, operations) < 1_200
    assert max(count_launches(table, body) for body in branches(run.graph, operations)) < 50


def num_bytes(shape: tf.TensorShape, dtype: tf.DType) -> int:
    """Of a tensor; -1 where its shape is not known."""
    return (shape.num_elements() or -1) * dtype.size


def measure(graph: tf.Graph, tensors: list[tf.Tensor]) -> list[int]:
    """Bytes of each tensor in the first update."""
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run([one for one in graph.get_operations() if one.type == "MakeIterator"])
        sizes = session.run([tf.size(tensor) for tensor in tensors])
    return [int(size) * tensor.dtype.size for size, tensor in zip(sizes, tensors)]
