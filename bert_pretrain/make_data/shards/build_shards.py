"""Text files -> shards: which text goes into which shard, and building one."""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.masking import Masking, MaskingRule
from bert_pretrain.data.shards.tfrecord import write_records
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.shards.exact_examples import ExactExamples, ExactRule, estimate_memory
from bert_pretrain.make_data.shards.fast_examples import (
    RepeatedRecords,
    draw_examples,
    may_repeat,
    pick_records,
)
from bert_pretrain.make_data.shards.instances import Instances, tokenize_documents, tokenize_documents_in_blocks
from bert_pretrain.make_data.shards.serialization import serialize_examples
from bert_pretrain.make_data.task_progress import Progress, ReportProgress
from bert_pretrain.make_data.text.account import Account
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.system.files import atomic_write, hash_file

_TOKENS_AT_ONCE = 8_000_000  # in fast mode

# For progress only.
_BYTES_PER_TOKEN = 4.5  # of English text
_CHARS_BETWEEN_REPORTS = 10_000_000
_READING, _DRAWING, _WRITING = 0.1, 0.6, 0.3  # shares of exact mode's time


class ShardTask(NamedTuple):
    """Text and the shards that are built from it, independently of all other tasks."""

    spans: tuple[corpus.Span, ...]
    outputs: tuple[str, ...]  # more than one only in exact mode
    vocab_file: str
    config: ExampleConfig

    @property
    def num_bytes(self) -> int:
        """Bytes of text."""
        return sum(span.end - span.start for span in self.spans)


class ShardCounts(NamedTuple):
    """What a task read and wrote."""

    documents: int
    tokens: int
    examples: int
    repeats: int = 0  # examples that were left out, because they equal another one; in fast mode
    text: Optional[dict[str, Any]] = None  # Account.amounts() of what was read


def tasks_for_files(
    spans: list[corpus.Span], outputs: list[str], vocab_file: str, config: ExampleConfig
) -> list[ShardTask]:
    """Exact mode: one task that writes examples to `outputs` in turn, as Google's script. Fast mode: a task a file."""
    if config.mode == "exact":
        return [ShardTask(tuple(spans), tuple(outputs), vocab_file, config)]
    parts = corpus.divide_text(spans, len(outputs))
    return [ShardTask(tuple(part), (output,), vocab_file, config) for part, output in zip(parts, outputs)]


def tasks_for_directory(
    spans: list[corpus.Span], directory: str, num_shards: int, vocab_file: str, config: ExampleConfig
) -> list[ShardTask]:
    """num_shards shards, each of its part of the text; with 0, a shard for each text file."""
    if num_shards:
        parts = corpus.divide_text(spans, num_shards)
        names = [f"part-{number:05d}-of-{num_shards:05d}" for number in range(num_shards)]
    else:
        parts = [[span] for span in spans]
        names = [os.path.basename(span.path) for span in spans]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--input_file: two files are named {name}, and both would become {name}.tfrecord")
    outputs = [os.path.join(directory, f"{name}.tfrecord") for name in names]
    return [ShardTask(tuple(part), (output,), vocab_file, config) for part, output in zip(parts, outputs)]


def unfinished_tasks(tasks: list[ShardTask]) -> list[ShardTask]:
    """The tasks of which an output is missing. ValueError where an output exists that was made from something else."""
    finished = [[provenance.is_finished(path, _origin(task)) for path in task.outputs] for task in tasks]
    return [task for task, outputs in zip(tasks, finished) if not all(outputs)]


def require_memory(tasks: list[ShardTask], max_memory_gb: float) -> None:
    """ValueError where a task of exact mode would need more memory; says how many shards need less."""
    exact = [task for task in tasks if task.config.mode == "exact"]
    if exact:
        largest = max(exact, key=lambda task: task.num_bytes)
        tokenizer = _tokenizer(largest.vocab_file, largest.config.do_lower_case)
        need = estimate_memory(largest.spans, tokenizer, largest.config)
        num_all_bytes = sum(task.num_bytes for task in tasks)
        need.require(largest.outputs[0], largest.num_bytes, num_all_bytes, max_memory_gb)


def make_shards(task: ShardTask, report: ReportProgress) -> ShardCounts:
    """Builds the shards of a task; each appears only when it is complete, and after its provenance."""
    config = task.config
    tokenizer = _tokenizer(task.vocab_file, config.do_lower_case)
    try:
        for output in task.outputs:
            os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
            provenance.remove_partial_output(output)
        return (_make_exact if config.mode == "exact" else _make_fast)(task, tokenizer, report)
    except OSError as error:
        raise ValueError(
            f"{task.outputs[0]}: cannot be written ({error.strerror}); the incomplete file was removed"
        ) from None


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_file: str, lower_case: bool) -> LineTokenizer:
    """One tokenizer for all tasks of a process, so that the next shard uses its cache."""
    return LineTokenizer(load_vocabulary(vocab_file), lower_case)


def _origin(task: ShardTask) -> provenance.Origin:
    return provenance.Origin(
        dataclasses.asdict(task.config), hash_file(task.vocab_file), provenance.describe_text(task.spans)
    )


def _make_exact(task: ShardTask, tokenizer: LineTokenizer, report: ReportProgress) -> ShardCounts:
    config, vocabulary = task.config, tokenizer.vocabulary
    origin = _origin(task)
    documents = corpus.read_documents(task.spans, as_google=True)
    account = Account()
    text = tokenize_documents(_reported(documents, task.num_bytes, report), tokenizer, account)
    _require_words(len(text.ids), task)
    rule = ExactRule(
        config.max_seq_length,
        config.short_seq_prob,
        config.dupe_factor,
        config.random_seed,
        MaskingRule.of(config, vocabulary, config.max_predictions_per_seq),
    )
    spool_directory = os.path.dirname(task.outputs[0]) or "."
    examples = ExactExamples(
        text, rule, spool_directory, lambda done: report(done._replace(share=_DRAWING * done.share))
    )
    if config.num_picked_examples:
        examples.pick(min(config.num_picked_examples, len(examples)))
    for number, output in enumerate(task.outputs):
        blocks = examples.blocks(number, len(task.outputs), vocabulary.id("[CLS]"), vocabulary.id("[SEP]"))
        with atomic_write(output, "wb") as file:
            num_records = write_records(file, _written(blocks, len(examples), report))
            counts = ShardCounts(text.num_documents, len(text.ids), num_records, text=account.amounts())
            _write_provenance(output, file, origin, counts, task)
    return ShardCounts(text.num_documents, len(text.ids), len(examples), text=account.amounts())


def _reported(documents: Iterable[list[str]], num_bytes: int, report: ReportProgress) -> Iterator[list[str]]:
    """The documents of exact mode; reports which share of num_bytes has been read."""
    num_chars = 0
    for document in documents:
        yield document
        num_chars += sum(map(len, document)) + len(document) + 1
        if num_chars > _CHARS_BETWEEN_REPORTS:
            report(Progress(_READING * num_chars / num_bytes))
            num_chars = 0


def _written(blocks: Iterable[tuple[Instances, Masking]], num_examples: int, report: ReportProgress) -> Iterator[bytes]:
    """The records of exact mode's examples, which are counted already."""
    for instances, masking in blocks:
        yield from serialize_examples(instances, masking)
        report(Progress(_WRITING * len(masking.ids) / num_examples))


def _make_fast(task: ShardTask, tokenizer: LineTokenizer, report: ReportProgress) -> ShardCounts:
    (output,) = task.outputs
    origin = _origin(task)
    num_documents = num_tokens = 0
    repeated = RepeatedRecords()
    account = Account()

    def records() -> Iterator[bytes]:
        nonlocal num_documents, num_tokens
        # Seeded by name, so that a shard does not depend on the number of shards.
        rng = np.random.default_rng([task.config.random_seed, zlib.crc32(os.fsencode(os.path.basename(output)))])
        documents = corpus.read_documents(task.spans)
        for text in tokenize_documents_in_blocks(documents, tokenizer, _TOKENS_AT_ONCE, account):
            num_documents += text.num_documents
            num_tokens += len(text.ids)
            repeated.begin_block()
            num_before = repeated.num_kept
            for block in draw_examples(text, task.config, tokenizer.vocabulary, rng):
                yield from repeated.without_repeats(serialize_examples(*block), may_repeat(*block))
            report(Progress(len(text.ids) * _BYTES_PER_TOKEN / task.num_bytes, repeated.num_kept - num_before))
        _require_words(num_tokens, task)

    with atomic_write(output, "wb") as file:
        num_records = write_records(file, pick_records(records(), task.config.num_picked_examples))
        counts = ShardCounts(num_documents, num_tokens, num_records, repeated.num_left_out, account.amounts())
        _write_provenance(output, file, origin, counts, task)
    return counts


def _write_provenance(
    output: str, file: IO[bytes], origin: provenance.Origin, counts: ShardCounts, task: ShardTask
) -> None:
    # The path says where the vocabulary was, not what it was.
    facts = {**counts._asdict(), "vocab_file": os.path.abspath(task.vocab_file)}
    provenance.write_provenance(output, file, origin, facts)


def _require_words(num_tokens: int, task: ShardTask) -> None:
    if num_tokens < 2:
        raise ValueError(
            f"{', '.join(span.path for span in task.spans[:3])}: {num_tokens} tokens of text, but a pair of sentences "
            f"needs two; give text, one sentence a line and a blank line between documents"
        )
