"""BERT's variables under the names that other programs give them, read as the TF1 checkpoint that they would be.

The schemes: TF1 graphs inside another scope (`module/` of TF-Hub) or with Keras' layer norms (`layer_normalization_1`),
both generations of tensorflow/models (official/nlp/tools/tf1_bert_checkpoint_converter_lib.py), whose object graphs
have keys such as `layer_with_weights-4/_attention_layer/_query_dense/kernel`, and transformers' TensorFlow models.
"""

from __future__ import annotations

import contextlib
import functools
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from bert_pretrain.system.files import plain_name

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends the keys of an object graph's variables
_PART = re.compile(r"(.+)/part_(\d+)")  # one of several that hold a variable's rows
_SLOT = re.compile(r"(.+)/(adam_m|adam_v|LAMB|LAMB_1)")
_FOREIGN_SLOT = re.compile(r".*(/(Adam|Adam_1|Momentum|RMSProp|RMSProp_1)|/\.OPTIMIZER_SLOT/.*)")
_OPTIMIZERS_SCOPE = re.compile(r"(.*/)?(\w*(Adam|LAMB|Optimizer|Momentum)\w*|m|v)/")  # before a weight's whole name
# Of these floating-point types a checkpoint's weights are read as float32.
CAST_DTYPES = (tf.float16, tf.bfloat16, tf.float64)

_NORM = r"(?:LayerNorm|layer_norm|layer_normalization)(?:_\d+)?"
_LAYER = r"(?:encoder|transformer)/layer(?:_|_\._|/)(\d+)/"
_KEY_LAYER = r"(?:_transformer_layers/|layer_with_weights-)(\d+)/"  # an object graph's
_QKV, _DENSE, _SCALE = "(query|key|value)", "(kernel|bias)", "(gamma|beta)"
# The end of a name -> the variable; a name of an earlier row is taken before one of a later row. Rows that begin with
# bert/ need it as a whole word: other networks (roberta/, electra/) have the same words after theirs.
_ROWS = [
    (r"bert(?:_model)?/embeddings/word_embeddings(?:/(?:embeddings|weight))?", "bert/embeddings/word_embeddings"),
    (r"bert/embeddings/(token_type|position)_embeddings(?:/(?:embeddings|weight))?", r"bert/embeddings/\1_embeddings"),
    (rf"bert/embeddings/{_NORM}/{_SCALE}", r"bert/embeddings/LayerNorm/\1"),
    (rf"bert/{_LAYER}attention/self(?:_attention)?/{_QKV}/{_DENSE}", r"bert/encoder/layer_\1/attention/self/\2/\3"),
    (rf"bert/{_LAYER}attention/(?:output|dense_output)/dense/{_DENSE}",
     r"bert/encoder/layer_\1/attention/output/dense/\2"),
    (rf"bert/{_LAYER}attention/(?:output|dense_output)/{_NORM}/{_SCALE}",
     r"bert/encoder/layer_\1/attention/output/LayerNorm/\2"),
    (rf"bert/{_LAYER}intermediate/dense/{_DENSE}", r"bert/encoder/layer_\1/intermediate/dense/\2"),
    (rf"bert/{_LAYER}(?:bert_)?output/dense/{_DENSE}", r"bert/encoder/layer_\1/output/dense/\2"),
    (rf"bert/{_LAYER}(?:bert_)?output/{_NORM}/{_SCALE}", r"bert/encoder/layer_\1/output/LayerNorm/\2"),
    (rf"bert/pooler/dense/{_DENSE}", r"bert/pooler/dense/\1"),
    # The heads.
    (r"(?:cls|mlm|mlm___cls)/predictions/(?:output_bias(?:/bias)?|bias)", "cls/predictions/output_bias"),
    (rf"(?:cls|mlm|mlm___cls)/predictions/transform/dense/{_DENSE}", r"cls/predictions/transform/dense/\1"),
    (rf"(?:cls|mlm|mlm___cls)/predictions/transform/{_NORM}/{_SCALE}", r"cls/predictions/transform/LayerNorm/\1"),
    (r"(?:cls|nsp|nsp___cls)/seq_relationship/(?:output_weights|kernel)", "cls/seq_relationship/output_weights"),
    (r"(?:cls|nsp|nsp___cls)/seq_relationship/(?:output_bias|bias)", "cls/seq_relationship/output_bias"),
    (r"(?:next_sentence|predictions/transform)/logits/kernel", "cls/seq_relationship/output_weights"),
    (r"(?:next_sentence|predictions/transform)/logits/bias", "cls/seq_relationship/output_bias"),
    # tensorflow/models. A next-sentence head with a pooler of its own does not use the encoder's.
    (rf"next_sentence/pooler_dense/{_DENSE}", r"bert/pooler/dense/\1"),
    (rf"pooler_transform/{_DENSE}", r"bert/pooler/dense/\1"),
    (r"word_embeddings/embeddings", "bert/embeddings/word_embeddings"),
    (r"(?:type_embeddings/embeddings|embedding_postprocessor/type_embeddings)",
     "bert/embeddings/token_type_embeddings"),
    (r"(?:position_embeddings?/embeddings|embedding_postprocessor/position_embeddings)",
     "bert/embeddings/position_embeddings"),
    (rf"(?:embeddings|embedding_postprocessor)/layer_norm/{_SCALE}", r"bert/embeddings/LayerNorm/\1"),
    (rf"{_LAYER}self_attention/{_QKV}/{_DENSE}", r"bert/encoder/layer_\1/attention/self/\2/\3"),
    (rf"{_LAYER}(?:self_attention/attention_output|self_attention_output)/{_DENSE}",
     r"bert/encoder/layer_\1/attention/output/dense/\2"),
    (rf"{_LAYER}self_attention_layer_norm/{_SCALE}", r"bert/encoder/layer_\1/attention/output/LayerNorm/\2"),
    (rf"{_LAYER}intermediate/{_DENSE}", r"bert/encoder/layer_\1/intermediate/dense/\2"),
    (rf"{_LAYER}output/{_DENSE}", r"bert/encoder/layer_\1/output/dense/\2"),
    (rf"{_LAYER}output_layer_norm/{_SCALE}", r"bert/encoder/layer_\1/output/LayerNorm/\2"),
    # Keys of its object graphs, where these have no names of variables; the first four layers are the embeddings.
    (r"(?:layer_with_weights-0|_embedding_layer)/embeddings|masked_lm/embedding_table",
     "bert/embeddings/word_embeddings"),
    (r"(?:layer_with_weights-1|_position_embedding_layer)/embeddings", "bert/embeddings/position_embeddings"),
    (r"(?:layer_with_weights-2|_type_embedding_layer)/embeddings", "bert/embeddings/token_type_embeddings"),
    (rf"(?:layer_with_weights-3|_embedding_norm_layer)/{_SCALE}", r"bert/embeddings/LayerNorm/\1"),
    (rf"{_KEY_LAYER}_attention_layer/_{_QKV}_dense/{_DENSE}", r"bert/encoder/layer_\1/attention/self/\2/\3"),
    (rf"{_KEY_LAYER}(?:_attention_layer/_output_dense|_attention_output_dense)/{_DENSE}",
     r"bert/encoder/layer_\1/attention/output/dense/\2"),
    (rf"{_KEY_LAYER}_attention_layer_norm/{_SCALE}", r"bert/encoder/layer_\1/attention/output/LayerNorm/\2"),
    (rf"{_KEY_LAYER}_intermediate_dense/{_DENSE}", r"bert/encoder/layer_\1/intermediate/dense/\2"),
    (rf"{_KEY_LAYER}_output_dense/{_DENSE}", r"bert/encoder/layer_\1/output/dense/\2"),
    (rf"{_KEY_LAYER}_output_layer_norm/{_SCALE}", r"bert/encoder/layer_\1/output/LayerNorm/\2"),
    (rf"(?:layer_with_weights-\d+|_pooler_layer)/{_DENSE}", r"bert/pooler/dense/\1"),
    (r"masked_lm/bias", "cls/predictions/output_bias"),
    (rf"masked_lm/dense/{_DENSE}", r"cls/predictions/transform/dense/\1"),
    (rf"masked_lm/layer_norm/{_SCALE}", r"cls/predictions/transform/LayerNorm/\1"),
]  # fmt: skip
_PATTERNS = [(re.compile(rf"(?:.*/)?(?:{pattern})"), variable) for pattern, variable in _ROWS]
_FIRST_ENCODER_LAYER = 4  # of layer_with_weights-N
_IDENTITY, _UNKNOWN = -1, len(_ROWS)  # ranks of names that are the variable's own, or nobody's

_QKV_DENSE = re.compile(r".*/attention/self/\w+/(kernel|bias)")
_ATTENTION_OUTPUT = re.compile(r".*/attention/output/dense/kernel")
_NEXT_SENTENCE = "cls/seq_relationship/output_weights"


def is_foreign_slot(name: str) -> bool:
    """True for what optimizers other than this program's keep for a weight."""
    return _FOREIGN_SLOT.fullmatch(name) is not None


class _Known(NamedTuple):
    """The variable that a name stands for."""

    rank: int  # the row that knows it
    variable: str


def _known_tensor(name: str, full_name: str) -> _Known:
    """What a tensor stands for; full_name: of the variable in the program that saved an object graph."""
    if not name.endswith(_VALUE):
        return _known_name(name)
    if "optimizer" in name.lower():
        return _Known(_UNKNOWN, name)
    known = _known_name(full_name)
    known = known if known.rank != _UNKNOWN else _known_name(name[: -len(_VALUE)])
    return known if known.rank != _UNKNOWN else _Known(_UNKNOWN, name)


@functools.lru_cache(maxsize=None)
def _known_name(name: str) -> _Known:
    """What a name without key or part suffix stands for; itself where no scheme knows it."""
    slot = _SLOT.fullmatch(name)
    if slot:
        known = _known_name(slot[1])
        return known._replace(variable=f"{known.variable}/{slot[2]}")
    for rank, (pattern, replacement) in enumerate(_PATTERNS):
        match = pattern.fullmatch(name)
        if match and not _OPTIMIZERS_SCOPE.match(name):
            variable = match.expand(replacement)
            if "layer_with_weights-" in name and variable.startswith("bert/encoder/layer_"):
                number = int(match[1]) - _FIRST_ENCODER_LAYER
                variable = re.sub(r"layer_\d+", f"layer_{number}", variable, count=1)
            return _Known(_IDENTITY if variable == name else rank, variable)
    return _Known(_UNKNOWN, name)


class TensorFlowReader:
    """A TF1 checkpoint, or one of another naming scheme as if it were one; weights of other floats are float32."""

    def __init__(self, prefix: str) -> None:
        """What tf.train.load_checkpoint raises; ValueError where two tensors stand for one variable."""
        with contextlib.ExitStack() as names:
            self._reader = tf.train.load_checkpoint(names.enter_context(plain_name(prefix)))
            weakref.finalize(self, names.pop_all().close)  # it opens the data files when they are read
        self._shapes = self._reader.get_variable_to_shape_map()
        self._dtypes = self._reader.get_variable_to_dtype_map()
        self._names = self._variable_names()  # variable -> its tensors, several where each holds a part of the rows
        self.renamed = {name: held[0] for name, held in self._names.items() if held != [name]}

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Variable -> shape, as in a TF1 checkpoint."""
        return {name: self._shape(name) for name in self._names}

    def get_variable_to_dtype_map(self) -> dict[str, tf.DType]:
        """Variable -> the type in the file."""
        return {name: self._dtypes[held[0]] for name, held in self._names.items()}

    def has_tensor(self, variable: str) -> bool:
        """True if the checkpoint holds the variable, whatever its name there."""
        return variable in self._names

    def get_tensor(self, variable: str) -> np.ndarray:
        """A variable's value as in a TF1 checkpoint; float32 for other floats."""
        values = [self._reader.get_tensor(name) for name in self._names[variable]]
        value = values[0] if len(values) == 1 else np.concatenate(values)
        if self._dtypes[self._names[variable][0]] in CAST_DTYPES:
            value = value.astype(np.float32)
        if variable in self.renamed:
            is_transposed = variable == _NEXT_SENTENCE and list(value.shape) != self._shape(variable)
            value = np.ascontiguousarray(value.T) if is_transposed else value.reshape(self._shape(variable))
        return value

    def _variable_names(self) -> dict[str, list[str]]:
        full_names = self._full_names()
        claims: dict[str, list[tuple[int, list[str]]]] = {}
        for name, held in _parts_together(self._shapes):
            rank, variable = _known_tensor(name, full_names.get(name, ""))
            claims.setdefault(variable, []).append((rank, held))
        names: dict[str, list[str]] = {}
        for variable, claimants in claims.items():
            (rank, held), *others = sorted(claimants, key=lambda claim: claim[0])
            if others and others[0][0] == rank:
                raise ValueError(
                    f"{held[0]} and {others[0][1][0]} both stand for {variable}; give a checkpoint of one model alone"
                )
            names[variable] = held
            names.update((name, [name]) for _, unused in others for name in unused)
        return names

    def _full_names(self) -> dict[str, str]:
        """Key -> the variable's name in the program that saved it; {} for checkpoints without an object graph."""
        if _OBJECT_GRAPH not in self._shapes:
            return {}
        try:
            graph = TrackableObjectGraph.FromString(self._reader.get_tensor(_OBJECT_GRAPH))
        except DecodeError:
            return {}
        attributes = (attribute for node in graph.nodes for attribute in node.attributes)
        return {one.checkpoint_key: one.full_name.partition(":")[0] for one in attributes if one.full_name}

    def _shape(self, variable: str) -> list[int]:
        """The shape in a TF1 checkpoint, where an attention's heads are columns of one matrix."""
        held = self._names[variable]
        shape = list(self._shapes[held[0]])
        if len(held) > 1:
            shape[0] = sum(self._shapes[name][0] for name in held)
        if held == [variable]:
            return shape
        if variable == _NEXT_SENTENCE:
            return [2, *(width for width in shape if width != 2)]  # Keras has [hidden, 2]
        if _ATTENTION_OUTPUT.fullmatch(variable) and len(shape) == 3:
            return [shape[0] * shape[1], shape[2]]
        found = _QKV_DENSE.fullmatch(variable)
        if found and len(shape) == (3 if found[1] == "kernel" else 2):
            return [*shape[:-2], shape[-2] * shape[-1]]
        return shape


def _parts_together(shapes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, list[str]]]:
    """A name and its one tensor, or a known variable's name and the tensors with its rows, in order."""
    parts: dict[str, dict[int, str]] = {}
    for name, shape in shapes.items():
        match = _PART.fullmatch(name)
        if match and shape and _known_name(match[1]).rank != _UNKNOWN:
            parts.setdefault(match[1], {})[int(match[2])] = name
        else:
            yield name, [name]
    for whole, held in parts.items():
        if sorted(held) == list(range(len(held))):
            yield whole, [held[number] for number in sorted(held)]
        else:
            yield from ((name, [name]) for name in held.values())


def closest_name(name: str, candidates: Iterable[str]) -> str:
    """The candidate, of at least one, that has most words in common with a name."""
    words = set(_words(name))
    return max(sorted(candidates), key=lambda one: len(words & set(_words(one))) - 0.01 * len(_words(one)))


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.lower())
