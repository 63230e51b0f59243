"""From text files to shards: which text makes which shard, and the making of one."""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data import corpus, record_bytes
from bert_pretrain.data.exact import ExactExamples, ExactRule
from bert_pretrain.data.instances import Instances, Pairs, assemble, draw_pairs
from bert_pretrain.data.masking import Masking, MaskingRule, mask
from bert_pretrain.data.tokens import tokenize, tokenize_in_blocks
from bert_pretrain.data.wordpiece import LineTokenizer, Vocabulary
from bert_pretrain.data.writer import write_shard

_TOKENS_AT_ONCE = 8_000_000
_EXAMPLES_AT_ONCE = 2048


class Task(NamedTuple):
    """Text that makes shards by itself, whatever happens to the rest."""

    spans: tuple[corpus.Span, ...]
    outputs: tuple[str, ...]  # more than one only in exact mode


class Counts(NamedTuple):
    """What a task read and wrote."""

    documents: int
    tokens: int
    examples: int


def find_text(patterns: str) -> list[corpus.Span]:
    """The files that comma separated patterns name, in their order. ValueError for a pattern without a file."""
    paths = []
    for pattern in patterns.split(","):
        found = sorted(path for path in glob.glob(os.path.expanduser(pattern.strip())) if not os.path.isdir(path))
        if not found:
            raise ValueError(f"--input_file: no file matches {pattern.strip()}")
        paths += found
    return [corpus.whole(path) for path in paths]


def tasks_for_files(spans: list[corpus.Span], outputs: list[str], mode: str) -> list[Task]:
    """All text to `outputs`: in turn, as Google's script does it, or each its part of the text in fast mode."""
    if mode == "exact":
        return [Task(tuple(spans), tuple(outputs))]
    parts = corpus.divide(spans, len(outputs))
    return [Task(tuple(part), (output,)) for part, output in zip(parts, outputs)]


def tasks_for_directory(spans: list[corpus.Span], directory: str) -> list[Task]:
    """A shard of its own for each text file."""
    outputs = [os.path.join(directory, os.path.basename(span.path) + ".tfrecord") for span in spans]
    for span, output in zip(spans, outputs):
        if outputs.count(output) > 1:
            raise ValueError(f"{span.path}: another input has the same file name, and both would become {output}")
    return [Task((span,), (output,)) for span, output in zip(spans, outputs)]


def make(task: Task, config: ExampleConfig, vocabulary: Vocabulary) -> Counts:
    """Makes the shards of a task; each appears under its name only when complete."""
    tokenizer = LineTokenizer(vocabulary, config.do_lower_case)
    return (_make_exact if config.mode == "exact" else _make_fast)(task, config, tokenizer)


def masking_rule(config: ExampleConfig, vocabulary: Vocabulary) -> MaskingRule:
    """The settings of masking in token ids."""
    continues_word = np.array([entry.startswith("##") for entry in vocabulary.entries])
    return MaskingRule(
        config.masked_lm_prob,
        config.max_predictions_per_seq,
        vocabulary.id("[MASK]"),
        len(vocabulary.entries),
        continues_word if config.do_whole_word_mask else None,
    )


def _make_exact(task: Task, config: ExampleConfig, tokenizer: LineTokenizer) -> Counts:
    vocabulary = tokenizer.vocabulary
    text = tokenize(corpus.read_documents(task.spans, as_google=True), tokenizer)
    _require_words(len(text.ids), task)
    rule = ExactRule(
        config.max_seq_length,
        config.short_seq_prob,
        config.dupe_factor,
        config.random_seed,
        masking_rule(config, vocabulary),
    )
    examples = ExactExamples(text, rule, os.path.dirname(task.outputs[0]) or ".")
    for number, output in enumerate(task.outputs):
        blocks = examples.blocks(number, len(task.outputs), vocabulary.id("[CLS]"), vocabulary.id("[SEP]"))
        write_shard(output, (record for block in blocks for record in record_bytes.records(*block)))
    return Counts(text.num_documents, len(text.ids), len(examples))


def _make_fast(task: Task, config: ExampleConfig, tokenizer: LineTokenizer) -> Counts:
    (output,) = task.outputs
    counts = Counts(0, 0, 0)

    def records() -> Iterator[bytes]:
        nonlocal counts
        # By name, so that a shard does not depend on how many others are made.
        rng = np.random.default_rng([config.random_seed, zlib.crc32(os.path.basename(output).encode())])
        documents = corpus.read_documents(task.spans)
        for text in tokenize_in_blocks(documents, tokenizer, _TOKENS_AT_ONCE):
            num_examples = 0
            for block in draw_examples(text, config, tokenizer.vocabulary, rng):
                num_examples += len(block[0].ids)
                yield from record_bytes.records(*block)
            counts = Counts(
                counts.documents + text.num_documents, counts.tokens + len(text.ids), counts.examples + num_examples
            )
        _require_words(counts.tokens, task)

    write_shard(output, records())
    return counts


def draw_examples(
    text, config: ExampleConfig, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[Instances, Masking]]:
    """The examples of a text in random order, in blocks."""
    pairs = draw_pairs(text, config.max_seq_length, config.short_seq_prob, config.dupe_factor, rng)
    order = rng.permutation(len(pairs.a_start))
    rule = masking_rule(config, vocabulary)
    for start in range(0, len(order), _EXAMPLES_AT_ONCE):
        chosen = Pairs(*(column[order[start : start + _EXAMPLES_AT_ONCE]] for column in pairs))
        instances = assemble(text, chosen, config.max_seq_length, vocabulary.id("[CLS]"), vocabulary.id("[SEP]"))
        yield instances, mask(instances, rule, rng)


def _require_words(num_tokens: int, task: Task) -> None:
    if num_tokens < 2:
        raise ValueError(
            f"{', '.join(span.path for span in task.spans[:3])}: {num_tokens} tokens of text, and a pair of sentences "
            f"takes two; give text, one sentence a line and a blank line between documents"
        )
