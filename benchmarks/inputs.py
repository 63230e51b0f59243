"""The data and the first weights of a comparison: shards with given lengths, weights by TF1 checkpoint name."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data import schema
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.model import variables

HISTOGRAM = pathlib.Path(__file__).parents[1] / "tests" / "golden" / "wiki512_length_histogram.json"
CLS, SEP, MASK, _FIRST_WORD, VOCAB_SIZE = 101, 102, 103, 999, 30_522  # of the published uncased vocabulary
NUM_SHARDS = 4
MASKED_SHARE = 0.15


def make_shards(directory: str, lengths: str, seq_length: int, max_predictions: int, num_records: int) -> list[str]:
    """Writes num_records records whose lengths are `full` or drawn from Wikipedia's (`wiki`); returns the files.

    Wikipedia's histogram is that of records of 512; for shorter records what is longer is cut.
    """
    os.makedirs(directory, exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for number in range(NUM_SHARDS):
        paths.append(os.path.join(directory, f"{lengths}-{seq_length}-{number:05d}-of-{NUM_SHARDS:05d}.tfrecord"))
        num_tokens = _lengths(lengths, seq_length, num_records // NUM_SHARDS, random)
        write_shard(paths[-1], schema.encode_examples(_examples(num_tokens, seq_length, max_predictions, random)))
    return paths


def make_weights(path: str, config: ModelConfig, knows_frequencies: bool = False) -> None:
    """Writes first weights: normal of the config's width cut at two deviations, gamma one, beta and bias zero.

    knows_frequencies: the masked-LM head's bias is the logarithm of how often each word occurs in make_shards' records,
    so that some predictions are right.
    """
    random = np.random.default_rng(0)
    weights = {name: _first(name, shape, config, random) for name, shape in variables.variable_shapes(config).items()}
    if knows_frequencies:
        bias = weights["cls/predictions/output_bias"]
        bias[:_FIRST_WORD] = -100.0
        bias[_FIRST_WORD:] = -np.log(np.arange(1, len(bias) - _FIRST_WORD + 1))
    np.savez(path, **weights)


def _lengths(kind: str, seq_length: int, count: int, random: np.random.Generator) -> np.ndarray:
    if kind == "full":
        return np.full(count, seq_length)
    counts = np.array(json.loads(HISTOGRAM.read_text())["counts"], np.float64)  # of lengths 1, 2, ... 512
    return np.minimum(random.choice(np.arange(1, len(counts) + 1), count, p=counts / counts.sum()), seq_length)


def _examples(
    num_tokens: np.ndarray, seq_length: int, max_predictions: int, random: np.random.Generator
) -> schema.Examples:
    count = len(num_tokens)
    tokens, mask, segments = (np.zeros([count, seq_length], np.int32) for _ in range(3))
    positions, ids = (np.zeros([count, max_predictions], np.int32) for _ in range(2))
    weights = np.zeros([count, max_predictions], np.float32)
    for i, length in enumerate(num_tokens):
        # Log-uniform ranks are close to how often words occur.
        words = _FIRST_WORD - 1 + np.exp(random.uniform(0.0, np.log(VOCAB_SIZE - _FIRST_WORD), length)).astype(np.int32)
        words[[0, length // 2, length - 1]] = CLS, SEP, SEP
        num_masked = min(max_predictions, max(1, round(MASKED_SHARE * length)))
        chosen = np.sort(random.permutation(np.setdiff1d(np.arange(1, length - 1), [length // 2]))[:num_masked])
        num_masked = len(chosen)
        positions[i, :num_masked], ids[i, :num_masked], weights[i, :num_masked] = chosen, words[chosen], 1.0
        words[chosen] = MASK
        tokens[i, :length], mask[i, :length], segments[i, length // 2 + 1 : length] = words, 1, 1
    return schema.Examples(tokens, mask, segments, positions, ids, weights, random.integers(0, 2, count, np.int32))


def _first(name: str, shape: tuple[int, ...], config: ModelConfig, random: np.random.Generator) -> np.ndarray:
    if name.endswith("gamma"):
        return np.ones(shape, np.float32)
    if name.endswith(("beta", "bias")):
        return np.zeros(shape, np.float32)
    values = random.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = random.standard_normal(int(outside.sum()), np.float32)
    return values * np.float32(config.initializer_range)
