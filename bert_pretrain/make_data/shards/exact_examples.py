"""Exact mode: the examples of google-research/bert's create_pretraining_data.py, with the same draws of random.Random.

The script's draws and their order are the specification. Here they choose ranges of token ids instead of lists of
strings. Each draw depends on those before it, so examples are drawn one after the other, with compiled functions where
there is a compiler (python_random.py); NumPy does the rest when the records are written.

All examples are drawn before the first is written, because the script shuffles them at the end. Memory: 2 bytes a
token, 16 a sentence, 29 an example, and the tokenizer's cache. On disk until the shard is written: 6 bytes a masked
token. What a text needs is estimated from a sample before the work begins.
"""

from __future__ import annotations

import math
import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.masking import Masking, MaskingRule, replace_tokens
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.shards.instances import (
    EXAMPLES_AT_ONCE,
    NUM_SPECIAL_TOKENS,
    Instances,
    Pairs,
    TokenizedText,
    assemble,
    tokenize_documents,
)
from bert_pretrain.make_data.shards.python_random import PythonDraws, make_draws
from bert_pretrain.make_data.task_progress import Progress, ReportProgress
from bert_pretrain.make_data.tokenization import LineTokenizer

_DOCUMENTS_AT_ONCE = 4096  # between reports
_MAX_TOKENS = 2**32 - 1  # so that their numbers take four bytes
_MASKED = np.dtype([("token", "<u2"), ("replacement", "<i4")])
_MASKED_IN_MEMORY = 1 << 20  # tokens

# The estimate of memory.
_SAMPLE_BYTES = 1_000_000
_FIXED_BYTES = 500_000_000  # the program, and the tokenizer's cache when it is full
_BYTES_PER_TOKEN, _BYTES_PER_SENTENCE, _BYTES_PER_DOCUMENT, _BYTES_PER_EXAMPLE = 2.2, 32, 64, 35
_EXAMPLES_PER_CHUNK = 1.6  # a random second sentence leaves text for one example more


class ExactRule(NamedTuple):
    """The settings that the draws depend on."""

    max_seq_length: int
    short_seq_prob: float
    dupe_factor: int
    random_seed: int
    masking: MaskingRule


class ExactExamples:
    """All examples of a text in the script's order."""

    def __init__(self, text: TokenizedText, rule: ExactRule, spool_directory: str, report: ReportProgress) -> None:
        """Draws all examples. The text must have at least two tokens."""
        if len(text.ids) > _MAX_TOKENS:
            raise ValueError(f"{len(text.ids)} tokens are too many for one text in exact mode; give --num_shards")
        self._text, self._rule = text, rule
        draws = make_draws(rule.random_seed, rule.masking.mask_id, rule.masking.replacements)
        documents = draws.order(text.num_documents, text.num_documents).tolist()
        self._drawn = _DrawnExamples(spool_directory)
        drawer = _Drawer(text, rule, documents, draws, self._drawn)
        for _ in range(rule.dupe_factor):
            for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
                positions = range(start, min(start + _DOCUMENTS_AT_ONCE, len(documents)))
                num_before = len(self._drawn)
                for position in positions:
                    drawer.draw_document(position)
                share = len(positions) / (rule.dupe_factor * len(documents))
                report(Progress(share, len(self._drawn) - num_before))
        self._drawn.finish()
        self._order = draws.order(len(self._drawn), len(self._drawn))

    def __len__(self) -> int:
        return len(self._order)

    def pick(self, num_examples: int) -> None:
        """Keeps num_examples at equal distances, as MLPerf picks its evaluation set from the held-out articles."""
        assert num_examples <= len(self), num_examples
        distance = len(self) / num_examples
        self._order = self._order[[int(number * distance) for number in range(num_examples)]]

    def blocks(self, first: int, step: int, cls_id: int, sep_id: int) -> Iterator[tuple[Instances, Masking]]:
        """Examples first, first + step, first + 2 step, ... in blocks."""
        order = self._order[first::step]
        for start in range(0, len(order), EXAMPLES_AT_ONCE):
            chosen = order[start : start + EXAMPLES_AT_ONCE].astype(np.int64)
            instances = assemble(self._text, self._drawn.pairs(chosen), self._rule.max_seq_length, cls_id, sep_id)
            yield instances, self._mask(instances, chosen)

    def _mask(self, instances: Instances, chosen: np.ndarray) -> Masking:
        tokens, replacements, num_masked = self._drawn.masks(chosen)
        shape = len(chosen), self._rule.masking.max_predictions_per_seq
        used = np.arange(shape[1]) < num_masked[:, None]
        columns, replacement_matrix = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        columns[used], replacement_matrix[used] = tokens, replacements
        columns += 1 + (columns >= instances.num_first[:, None] - 2)  # [CLS], and [SEP] between A and B
        return replace_tokens(instances, columns, num_masked, replacement_matrix)


class _Drawer:
    """Draws a document's examples as the script does."""

    def __init__(
        self, text: TokenizedText, rule: ExactRule, documents: list[int], draws: PythonDraws, drawn: _DrawnExamples
    ) -> None:
        self._rule, self._documents, self._drawn = rule, documents, drawn
        self._ids, self._continues_word = text.ids, rule.masking.continues_word
        self._starts = array("q", text.sentence_starts.tobytes())
        self._document_starts = array("q", text.document_starts.tobytes())
        self._draws, self._uniform, self._below = draws, draws.uniform, draws.below

    def draw_document(self, position: int) -> None:
        """Adds the examples of the document at `position` of the shuffled documents."""
        starts, rule = self._starts, self._rule
        capacity = target = rule.max_seq_length - NUM_SPECIAL_TOKENS
        if self._uniform() < rule.short_seq_prob:
            target = 2 + self._below(capacity - 1)
        document = self._documents[position]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        while first < last:
            end = self._end_of_sentences(first, last, target)
            cut = first + 1
            if end - first > 1:
                cut += self._below(end - first - 1)
            is_random_next = end - first == 1 or self._uniform() < 0.5
            if is_random_next:
                b_start, b_end = self._random_next(position, target - (starts[cut] - starts[first]))
            else:
                b_start, b_end = starts[cut], starts[end]
            a_start, a_end, b_start, b_end = self._truncate(starts[first], starts[cut], b_start, b_end, capacity)
            masked, replacements = self._mask(a_start, a_end, b_start, b_end)
            self._drawn.add((a_start, a_end, b_start, b_end, is_random_next), masked, replacements)
            first = cut if is_random_next else end

    def _end_of_sentences(self, first: int, last: int, num_tokens: int) -> int:
        """End of the shortest run of sentences from `first` that has num_tokens, or `last`."""
        return min(bisect_left(self._starts, self._starts[first] + num_tokens, first + 1, last + 1), last)

    def _random_next(self, position: int, num_tokens: int) -> tuple[int, int]:
        other = position
        for _ in range(10):
            other = self._below(len(self._documents))
            if other != position:
                break
        document = self._documents[other]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        first += self._below(last - first)
        end = self._end_of_sentences(first, last, max(num_tokens, 1))
        return self._starts[first], self._starts[end]

    def _truncate(self, a_start: int, a_end: int, b_start: int, b_end: int, capacity: int) -> tuple[int, int, int, int]:
        draw = self._uniform
        num_a, num_b = a_end - a_start, b_end - b_start
        for _ in range(num_a + num_b - capacity):
            at_front = draw() < 0.5
            if num_a > num_b:
                num_a -= 1
                a_start += at_front
            else:
                num_b -= 1
                b_start += at_front
        return a_start, a_start + num_a, b_start, b_start + num_b

    def _mask(self, a_start: int, a_end: int, b_start: int, b_end: int) -> tuple[np.ndarray, np.ndarray]:
        """Masked tokens in the order drawn, by their number among those of A and B, and their replacements."""
        rule = self._rule.masking
        num_tokens = a_end - a_start + b_end - b_start
        share = round((num_tokens + NUM_SPECIAL_TOKENS) * rule.masked_lm_prob)
        wanted = min(rule.max_predictions_per_seq, max(1, share))
        if self._continues_word is None:
            tokens = self._draws.order(num_tokens, wanted)
        else:
            words = self._words(self._continues_word, a_start, a_end, b_start, b_end)
            order = self._draws.order(len(words), len(words)).tolist()
            tokens = np.array(_words_that_fit([words[number] for number in order], wanted), np.uint32)
        return tokens, self._draws.replacements(len(tokens))

    def _words(self, continues_word: np.ndarray, a_start: int, a_end: int, b_start: int, b_end: int) -> list[list[int]]:
        """The tokens of each word. As in the script, a ## piece at the start of a cut B belongs to A's last word."""
        ids = np.concatenate([self._ids[a_start:a_end], self._ids[b_start:b_end]])
        words: list[list[int]] = []
        for token, continues in enumerate(continues_word[ids].tolist()):
            if continues and words:
                words[-1].append(token)
            else:
                words.append([token])
        return words


def _words_that_fit(words: list[list[int]], wanted: int) -> list[int]:
    """The tokens of whole words, in turn where a word still fits, `wanted` at most."""
    tokens: list[int] = []
    for word in words:
        if len(tokens) >= wanted:
            break
        if len(tokens) + len(word) <= wanted:
            tokens.extend(word)
    return tokens


class _DrawnExamples:
    """The examples drawn so far: pairs in memory, masked tokens and their replacements in a temporary file."""

    def __init__(self, spool_directory: str) -> None:
        self.a_start, self.a_end, self.b_start, self.b_end = (array("I") for _ in range(4))
        self.is_random_next = array("b")
        self.mask_ends = array("q", [0])
        self._masked, self._num_masked = np.empty(_MASKED_IN_MEMORY, _MASKED), 0
        self._tokens, self._replacements = self._masked["token"], self._masked["replacement"]
        self._spool = tempfile.TemporaryFile(dir=spool_directory)  # noqa: SIM115  removed with this object

    def __len__(self) -> int:
        return len(self.is_random_next)

    def add(self, pair: tuple[int, int, int, int, bool], tokens: np.ndarray, replacements: np.ndarray) -> None:
        """Appends an example: a_start, a_end, b_start, b_end, is_random_next; its masked tokens, replacements."""
        a_start, a_end, b_start, b_end, is_random_next = pair
        self.a_start.append(a_start)
        self.a_end.append(a_end)
        self.b_start.append(b_start)
        self.b_end.append(b_end)
        self.is_random_next.append(is_random_next)
        if self._num_masked + len(tokens) > len(self._masked):
            self._spill()
        start, end = self._num_masked, self._num_masked + len(tokens)
        self._tokens[start:end], self._replacements[start:end], self._num_masked = tokens, replacements, end
        self.mask_ends.append(self.mask_ends[-1] + len(tokens))

    def _spill(self) -> None:
        self._spool.write(self._masked[: self._num_masked].tobytes())
        self._num_masked = 0

    def finish(self) -> None:
        """Ends adding; from now on examples can be read."""
        self._spill()
        self._spool.flush()

    def pairs(self, chosen: np.ndarray) -> Pairs:
        """The sentence pairs of the chosen examples [E]."""
        columns = (self.a_start, self.a_end, self.b_start, self.b_end)
        a_start, a_end, b_start, b_end = (
            np.frombuffer(column, np.uint32)[chosen].astype(np.int64) for column in columns
        )
        is_random_next = np.frombuffer(self.is_random_next, np.int8)[chosen].astype(bool)
        return Pairs(a_start, a_end, b_start, b_end, is_random_next)

    def masks(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens and replacements of the chosen examples in one array each, and how many each example has [E]."""
        ends = np.frombuffer(self.mask_ends, np.int64)
        starts, num_masked = ends[chosen], ends[chosen + 1] - ends[chosen]
        size, file = _MASKED.itemsize, self._spool.fileno()
        # Read, not mapped: mapped pages would count as memory of this process.
        parts = [os.pread(file, size * num, size * start) for start, num in zip(starts.tolist(), num_masked.tolist())]
        masked = np.frombuffer(b"".join(parts), _MASKED)
        return masked["token"], masked["replacement"], num_masked


class MemoryNeed(NamedTuple):
    """What exact mode needs for a shard, as estimated from the text's first documents."""

    bytes_per_byte: float  # of memory, of text

    def of(self, num_bytes: int) -> int:
        """Peak memory in bytes for a shard of num_bytes of text."""
        return _FIXED_BYTES + int(num_bytes * self.bytes_per_byte)

    def num_shards(self, num_bytes: int, max_memory: float) -> int:
        """Into how many shards num_bytes of text must be divided, so that each needs less than max_memory."""
        # Shards are cut between documents and not quite equal.
        return math.ceil(num_bytes * self.bytes_per_byte / (0.9 * max(max_memory - _FIXED_BYTES, 1.0)))

    def require(self, output: str, num_bytes: int, num_all_bytes: int, max_memory_gb: float) -> None:
        """ValueError where a shard of num_bytes needs more; says how many shards of all the text need less."""
        needed = self.of(num_bytes)
        if needed > max_memory_gb * 1e9:
            num_shards = self.num_shards(num_all_bytes, max_memory_gb * 1e9)
            raise ValueError(
                f"{output}: exact mode mixes all text of a shard, and {num_bytes / 1e9:.2f} GB of text need about "
                f"{needed / 1e9:.1f} GB of memory, more than --max_memory_gb {max_memory_gb:g}; --output_dir with "
                f"--num_shards={num_shards} needs less, or give --max_memory_gb={needed / 1e9 + 0.1:.1f}"
            )


def estimate_memory(spans: Sequence[corpus.Span], tokenizer: LineTokenizer, config: ExampleConfig) -> MemoryNeed:
    """What a shard of the text needs, as about 1 MB of it tells."""
    sample = list(_first_documents(spans))
    text = tokenize_documents(sample, tokenizer)
    capacity = config.max_seq_length - NUM_SPECIAL_TOKENS
    num_examples = config.dupe_factor * (_EXAMPLES_PER_CHUNK * len(text.ids) / capacity + text.num_documents)
    num_bytes = (
        _BYTES_PER_TOKEN * len(text.ids)
        + _BYTES_PER_SENTENCE * (len(text.sentence_starts) - 1)
        + _BYTES_PER_DOCUMENT * text.num_documents
        + _BYTES_PER_EXAMPLE * num_examples
    )
    num_sampled = sum(len(line.encode()) + 1 for document in sample for line in document) + len(sample)
    return MemoryNeed(num_bytes / max(num_sampled, 1))


def _first_documents(spans: Sequence[corpus.Span]) -> Iterator[list[str]]:
    num_chars = 0
    for document in corpus.read_documents(spans):
        yield document
        num_chars += sum(map(len, document))
        if num_chars > _SAMPLE_BYTES:
            return
