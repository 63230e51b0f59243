"""Exact mode: the examples of google-research/bert's create_pretraining_data.py, with the same draws of random.Random.

The script's draws and their order are the specification. Here they choose ranges of token ids instead of lists of
strings. Each draw depends on those before it, so examples are drawn one after the other, with compiled functions where
there is a compiler (python_random.py); NumPy does the rest when the records are written.

All examples are drawn before the first is written, because the script shuffles them at the end. Memory: 2 bytes a
token, 16 a sentence, what drawn_examples.py says, and the tokenizer's cache.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.masking import Masking, MaskingRule, replace
from bert_pretrain.make_data.drawn_examples import DrawnExamples
from bert_pretrain.make_data.instances import NUM_SPECIAL_TOKENS, Instances, assemble
from bert_pretrain.make_data.python_random import Draws, make_draws
from bert_pretrain.make_data.task_progress import Done
from bert_pretrain.make_data.tokenized_text import TokenizedText
from bert_pretrain.system.worker_pool import ReportProgress

_EXAMPLES_AT_ONCE = 256  # so that they stay in the processor's cache
_DOCUMENTS_AT_ONCE = 4096  # between reports
_MAX_TOKENS = 2**32 - 1  # so that their numbers take four bytes


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
        self._drawn = DrawnExamples(spool_directory)
        drawer = _Drawer(text, rule, documents, draws, self._drawn)
        for _ in range(rule.dupe_factor):
            for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
                positions = range(start, min(start + _DOCUMENTS_AT_ONCE, len(documents)))
                num_before = len(self._drawn)
                for position in positions:
                    drawer.draw_document(position)
                share = len(positions) / (rule.dupe_factor * len(documents))
                report(Done(share, len(self._drawn) - num_before))
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
        for start in range(0, len(order), _EXAMPLES_AT_ONCE):
            chosen = order[start : start + _EXAMPLES_AT_ONCE].astype(np.int64)
            instances = assemble(self._text, self._drawn.pairs(chosen), self._rule.max_seq_length, cls_id, sep_id)
            yield instances, self._mask(instances, chosen)

    def _mask(self, instances: Instances, chosen: np.ndarray) -> Masking:
        tokens, replacements, num_masked = self._drawn.masks(chosen)
        shape = len(chosen), self._rule.masking.max_predictions_per_seq
        used = np.arange(shape[1]) < num_masked[:, None]
        columns, replacement_matrix = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        columns[used], replacement_matrix[used] = tokens, replacements
        columns += 1 + (columns >= instances.num_first[:, None] - 2)  # [CLS], and [SEP] between A and B
        return replace(instances, columns, num_masked, replacement_matrix)


class _Drawer:
    """Draws a document's examples as the script does."""

    def __init__(
        self, text: TokenizedText, rule: ExactRule, documents: list[int], draws: Draws, drawn: DrawnExamples
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
            words = self._words(a_start, a_end, b_start, b_end)
            order = self._draws.order(len(words), len(words)).tolist()
            tokens = np.array(_words_that_fit([words[number] for number in order], wanted), np.uint32)
        return tokens, self._draws.replacements(len(tokens))

    def _words(self, a_start: int, a_end: int, b_start: int, b_end: int) -> list[list[int]]:
        """The tokens of each word. As in the script, a ## piece at the start of a cut B belongs to A's last word."""
        ids = np.concatenate([self._ids[a_start:a_end], self._ids[b_start:b_end]])
        words: list[list[int]] = []
        for token, continues in enumerate(self._continues_word[ids].tolist()):
            if continues and words:
                words[-1].append(token)
            else:
                words.append([token])
        return words


def _words_that_fit(words: list[list[int]], wanted: int) -> list[int]:
    tokens: list[int] = []
    for word in words:
        if len(tokens) >= wanted:
            break
        if len(tokens) + len(word) <= wanted:
            tokens.extend(word)
    return tokens
