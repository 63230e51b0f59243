"""The vocabulary step: text files to a vocabulary, and a JSON file beside it that says how well it covers text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bert_pretrain.data import vocab
from bert_pretrain.make_data import corpus, provenance, word_counts
from bert_pretrain.make_data.task_progress import run_tasks
from bert_pretrain.make_data.train_vocab import vocabulary_of_words
from bert_pretrain.make_data.vocab_coverage import hold_out, measure
from bert_pretrain.system import worker_pool
from bert_pretrain.system.files import write_json

_BYTES_PER_WORD = 500  # of memory at the peak, while merges are learned


def build_vocabulary(
    spans: Sequence[corpus.Span],
    eval_spans: Sequence[corpus.Span],
    vocab_file: str,
    size: int,
    lower_case: bool,
    max_memory_gb: float,
    workers: worker_pool.Workers,
) -> Iterator[str]:
    """Writes vocab_file and vocab_file.json; yields lines that say what they contain.

    Without eval_spans the last 1 % of the text is held out for the coverage.
    """
    text, held_out = (list(spans), list(eval_spans)) if eval_spans else hold_out(spans)
    counted = _count(text, lower_case, max_memory_gb, workers)
    vocabulary = vocabulary_of_words(counted.counts, size)
    vocab.write_vocabulary(vocab_file, vocabulary)
    coverage = measure(held_out or text, vocabulary, lower_case)
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
    yield from _remarks(len(vocabulary.entries), size, counted.max_missed, max_memory_gb)
    yield f"{measured}: {coverage}"


def _count(
    text: Sequence[corpus.Span], lower_case: bool, max_memory_gb: float, workers: worker_pool.Workers
) -> word_counts.WordCounts:
    counted = word_counts.WordCounts(int(max_memory_gb * 1e9 / _BYTES_PER_WORD))
    parts = word_counts.parts(text, lower_case)
    sizes = [part.num_bytes for part in parts]
    run_tasks(workers, word_counts.count_part, parts, sizes, len(parts), lambda found: counted.add(*found))
    return counted


def _remarks(num_entries: int, size: int, max_missed: int, max_memory_gb: float) -> Iterator[str]:
    if num_entries < size:
        yield f"fewer than --vocab_size {size}: no two pieces of a word are left to join"
    if max_missed:
        yield (
            f"the distinct words did not fit into --max_memory_gb {max_memory_gb:g}: counts may be too small by "
            f"{max_missed}, and words that occur at most so often may be missing"
        )
