"""The --train_vocab step: text files -> a vocabulary, and a JSON file beside it that says how well it covers text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data import vocab
from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.task_progress import run_tasks
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.vocabulary.training import vocabulary_of_words
from bert_pretrain.make_data.vocabulary.word_counts import (
    WordCounts,
    count_words,
    count_words_of_task,
    tasks_for_counting,
)
from bert_pretrain.system.files import write_json
from bert_pretrain.system.worker_pool import Workers

_BYTES_PER_WORD = 500  # of memory at the peak, while merges are learned
# The text by which coverage is measured.
_HELD_OUT_PERCENT = 1
_MIN_HELD_OUT_BYTES = 10_000  # of less text, shares say little
_MAX_READ_BYTES = 20_000_000
_WORDS_AT_ONCE = 100_000


def build_vocabulary(
    spans: Sequence[corpus.Span],
    eval_spans: Sequence[corpus.Span],
    vocab_file: str,
    size: int,
    lower_case: bool,
    max_memory_gb: float,
    workers: Workers,
) -> Iterator[str]:
    """Writes vocab_file and vocab_file.json; yields lines that say what they contain.

    Without eval_spans the last 1 % of the text is held out for the coverage.
    """
    text, held_out = (list(spans), list(eval_spans)) if eval_spans else hold_out_end(spans)
    counted = WordCounts(int(max_memory_gb * 1e9 / _BYTES_PER_WORD))
    tasks = tasks_for_counting(text, lower_case)
    sizes = [task.num_bytes for task in tasks]
    run_tasks(workers, count_words_of_task, tasks, sizes, len(tasks), lambda found: counted.add(*found))
    vocabulary = vocabulary_of_words(counted.counts, size)
    vocab.write_vocabulary(vocab_file, vocabulary)
    coverage = measure_coverage(held_out or text, vocabulary, lower_case)
    measured = "held-out text" if held_out else "the text itself"
    report = {
        "entries": len(vocabulary.entries),
        "lower_case": lower_case,
        "distinct_words": len(counted.counts),
        "max_missed_occurrences": counted.max_missed,
        "coverage_of": measured,
        "coverage": coverage._asdict(),
        "text": provenance.describe_text(tuple(text)),
        "held_out": provenance.describe_text(tuple(held_out)),
    }
    write_json(f"{vocab_file}.json", report)
    yield f"{vocab_file}: {len(vocabulary.entries)} entries, from {len(counted.counts)} distinct words"
    if len(vocabulary.entries) < size:
        yield f"fewer than --vocab_size {size}: no two pieces of a word are left to join"
    if counted.max_missed:
        yield (
            f"the distinct words did not fit into --max_memory_gb {max_memory_gb:g}: counts may be too small by "
            f"{counted.max_missed}, and words that occur at most so often may be missing"
        )
    yield f"{measured}: {coverage}"


class Coverage(NamedTuple):
    """What a text's words become."""

    words: int
    pieces: int
    unknown_words: int  # that become [UNK]

    def __str__(self) -> str:
        words = max(self.words, 1)
        return (
            f"{self.pieces / words:.3f} pieces a word, {100 * self.unknown_words / words:.4f} % of the words [UNK], "
            f"{self.words} words"
        )


def hold_out_end(spans: Sequence[corpus.Span]) -> tuple[list[corpus.Span], list[corpus.Span]]:
    """The text, and its last documents, about 1 % of it, by themselves; none where that is too little text."""
    num_bytes = sum(span.end - span.start for span in spans) * _HELD_OUT_PERCENT // 100
    if num_bytes < _MIN_HELD_OUT_BYTES:
        return list(spans), []
    return corpus.split_end(spans, num_bytes)


def measure_coverage(spans: Sequence[corpus.Span], vocabulary: Vocabulary, lower_case: bool) -> Coverage:
    """The coverage of the text, or of its first 20 MB."""
    words = count_words(corpus.read_first_blocks(spans, _MAX_READ_BYTES), lower_case)
    tokenizer = LineTokenizer(vocabulary, lower_case)
    distinct, unknown_id = list(words), vocabulary.id("[UNK]")
    total = Coverage(sum(words.values()), 0, 0)
    for start in range(0, len(distinct), _WORDS_AT_ONCE):
        some = distinct[start : start + _WORDS_AT_ONCE]
        counts = np.array([words[word] for word in some], np.int64)
        ids, num_pieces = tokenizer.encode(some)
        word = np.repeat(np.arange(len(some)), num_pieces)[ids == unknown_id]  # a word has one [UNK] at most
        total = Coverage(
            total.words, total.pieces + int(counts @ num_pieces), total.unknown_words + int(counts[word].sum())
        )
    return total
