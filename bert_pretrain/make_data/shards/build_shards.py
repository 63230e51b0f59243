"""Text files -> shards: which text goes into which shard, and building one."""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import IO, Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.findings import Finding, RecordStatistics, judge_documents, judge_records
from bert_pretrain.data.masking import Masking, MaskingRule
from bert_pretrain.data.shards.tfrecord import write_records
from bert_pretrain.data.vocab import Vocabulary, load_vocabulary
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.shards.exact_examples import ExactExamples, ExactRule, estimate_memory
from bert_pretrain.make_data.shards.fast_examples import (
    RepeatedRecords,
    draw_examples,
    may_repeat,
    pick_records,
    picked_numbers,
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
    finished = [
        [provenance.is_finished(path, _origin(task), dataclasses.asdict(ExampleConfig())) for path in task.outputs]
        for task in tasks
    ]
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
        counter = _RecordCounter(vocabulary)
        with atomic_write(output, "wb") as file:
            num_records = write_records(file, _written(blocks, len(examples), counter, report))
            counts = ShardCounts(text.num_documents, len(text.ids), num_records, text=account.amounts())
            _write_provenance(output, file, origin, counts, counter.total(), task)
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


def _written(
    blocks: Iterable[tuple[Instances, Masking]], num_examples: int, counter: _RecordCounter, report: ReportProgress
) -> Iterator[bytes]:
    """The records of exact mode's examples, of which there are num_examples."""
    for instances, masking in blocks:
        counter.add(instances, masking)
        yield from serialize_examples(instances, masking)
        report(Progress(_WRITING * len(masking.ids) / num_examples))


def _make_fast(task: ShardTask, tokenizer: LineTokenizer, report: ReportProgress) -> ShardCounts:
    (output,) = task.outputs
    origin = _origin(task)
    num_documents = num_tokens = 0
    repeated, counter, account = RepeatedRecords(), _RecordCounter(tokenizer.vocabulary), Account()

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
                drawn = serialize_examples(*block)
                is_new = repeated.find_new(drawn, may_repeat(*block))
                counter.add(*block, is_new)
                yield from compress(drawn, is_new)
            report(Progress(len(text.ids) * _BYTES_PER_TOKEN / task.num_bytes, repeated.num_kept - num_before))
        _require_words(num_tokens, task)

    with atomic_write(output, "wb") as file:
        num_records = write_records(file, pick_records(records(), task.config.num_picked_examples))
        counts = ShardCounts(num_documents, num_tokens, num_records, repeated.num_left_out, account.amounts())
        _write_provenance(output, file, origin, counts, counter.total(task.config.num_picked_examples), task)
    return counts


class _RecordCounter:
    """Counts what is written, for the findings; a few numbers for each record, as some are left out at the end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        numbered = vocabulary.numbered()
        self._mask_id, self._unk_id = numbered["[MASK]"], numbered["[UNK]"]
        self._rows: list[np.ndarray] = []  # [E, 7] each
        self._seq_length = 0

    def add(self, instances: Instances, masking: Masking, is_written: Optional[Sequence[bool]] = None) -> None:
        """Counts E records, or those of them that are written."""
        self._seq_length = masking.input_ids.shape[1]
        is_used = np.arange(masking.positions.shape[1]) < masking.num_masked[:, None]  # [E, P]
        shown = np.take_along_axis(masking.input_ids, masking.positions, axis=1)
        columns = (
            instances.num_tokens,
            masking.num_masked,
            instances.num_first == instances.num_tokens,
            instances.is_random_next,
            np.count_nonzero(is_used & (shown == self._mask_id), axis=1),
            np.count_nonzero(is_used & (shown == masking.ids), axis=1),
            np.count_nonzero((instances.ids == self._unk_id) & (instances.ids > 0), axis=1),
        )
        rows = np.stack(columns, axis=1).astype(np.int32)
        self._rows.append(rows if is_written is None else rows[np.array(is_written, bool)])

    def total(self, num_picked: int = 0) -> RecordStatistics:
        """Of all records, or of those that pick_records keeps."""
        rows = np.concatenate([np.zeros((0, 7), np.int32), *self._rows])
        rows = rows[picked_numbers(len(rows), num_picked)]
        sums = rows.sum(axis=0, dtype=np.int64).tolist()
        tokens, predictions, with_one_segment, random_next, mask_tokens, kept_tokens, unknown = sums
        return RecordStatistics(
            records=len(rows),
            slots=len(rows) * self._seq_length,
            tokens=tokens,
            predictions=predictions,
            without_prediction=int(np.count_nonzero(rows[:, 1] == 0)),
            with_one_segment=with_one_segment,
            random_next=random_next,
            mask_tokens=mask_tokens,
            kept_tokens=kept_tokens,
            unknown=unknown,
        )


def judge_shards(tasks: Sequence[ShardTask]) -> list[Finding]:
    """What the side files of finished shards say about training on them; those of an older version say nothing."""
    statistics, num_single = [], 0
    for task in tasks:
        facts = [content for output in task.outputs if (content := provenance.read_provenance(output))]
        statistics += [RecordStatistics(**content["statistics"]) for content in facts if "statistics" in content]
        num_single += not task.config.single_sequence and any(content.get("documents") == 1 for content in facts)
    records = judge_records(RecordStatistics.sum_of(statistics)) if statistics else []
    return [*records, *judge_documents(num_single, len(tasks))]


def _write_provenance(
    output: str,
    file: IO[bytes],
    origin: provenance.Origin,
    counts: ShardCounts,
    statistics: RecordStatistics,
    task: ShardTask,
) -> None:
    # The path says where the vocabulary was, not what it was.
    facts = {**counts._asdict(), "vocab_file": os.path.abspath(task.vocab_file)}
    num_single = int(counts.documents == 1 and not task.config.single_sequence)
    findings = [str(finding) for finding in (*judge_records(statistics), *judge_documents(num_single, 1))]
    facts.update(statistics=statistics._asdict(), findings=findings)
    provenance.write_provenance(output, file, origin, facts)


def _require_words(num_tokens: int, task: ShardTask) -> None:
    least, of_what = (1, "record") if task.config.single_sequence else (2, "pair of sentences")
    if num_tokens < least:
        raise ValueError(
            f"{', '.join(span.path for span in task.spans[:3])}: {num_tokens} tokens of text, but a {of_what} needs "
            f"{least}; give text, one sentence a line and a blank line between documents"
        )
