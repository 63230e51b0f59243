"""Training a WordPiece vocabulary: its entries are learned from counted words.

Byte pair encoding (https://arxiv.org/abs/1508.07909) over distinct words: the most frequent pair of adjacent symbols
becomes a new symbol, again and again; of equally frequent pairs, the one with the smaller numbers. The entries are
those of the tokenizers library's WordPieceTrainer, which takes text instead of counts, 700 bytes a distinct word
instead of 150, and counts in 32 bits.

All words lie in one array with a 0 between them, one place a character. A symbol of several characters has its number
at its first and last place, so both neighbours of a symbol are one look away.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary
from bert_pretrain.make_data.vocabulary.word_counts import count_words

_PLACES_AT_ONCE = 1 << 22  # where pairs are counted first
_SHIFT = 32  # a pair (a, b) is the integer a << 32 | b


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines in any order.

    Memory grows with the number of distinct words. ValueError if size is too small for the characters of the text.
    """
    return vocabulary_of_words(count_words(lines, lower_case), size)


def vocabulary_of_words(counts: Mapping[str, int], size: int) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries for words that occur so often.

    There are fewer entries where no two pieces of a word are left to join. ValueError if size is too small for the
    characters of the words.
    """
    alphabet = sorted(set().union(*counts))
    first = [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]
    if size <= len(first):
        raise ValueError(f"--vocab_size {size} is too small: {len(first)} entries are single characters of this text")
    numbers = np.fromiter(counts.values(), np.int64, len(counts))
    return Vocabulary(tuple(_learn_entries(list(counts), numbers, first, size)))


def _learn_entries(words: Sequence[str], counts: np.ndarray, first: Sequence[str], size: int) -> list[str]:
    """`first` and the symbols learned from words with counts [W], `size` in all, or fewer where no pair is left.

    `first` begins with an entry that is no part of a word, and contains each character c of the words, and ##c.
    """
    symbols = _Symbols(words, counts, first)
    queue = _Queue()
    queue.add(symbols.pair_counts)
    entries, numbers = list(first), {entry: number for number, entry in enumerate(first)}
    while len(entries) < size:
        pair = queue.pop(symbols.pair_counts)
        if pair is None:
            break
        left, right = pair >> _SHIFT, pair & ((1 << _SHIFT) - 1)
        entry = entries[left] + entries[right][2:]  # without ##
        merged = numbers.setdefault(entry, len(entries))
        if merged == len(entries):  # else another pair made the same characters before
            entries.append(entry)
        queue.add(symbols.merge(left, right, merged))
    return entries


class _Queue:
    """Pairs, the most frequent first. Pairs that are added together wait in an array; only their first is in a heap."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, np.ndarray, int]] = []
        self._num_added = 0

    def add(self, pairs: dict[int, int]) -> None:
        """Adds pairs with counts above 0."""
        codes = np.fromiter(pairs.keys(), np.int64, len(pairs))
        counts = np.fromiter(pairs.values(), np.int64, len(pairs))
        order = np.lexsort((codes, -counts))
        self._push(np.stack([-counts[order], codes[order]]), 0)

    def _push(self, group: np.ndarray, place: int) -> None:
        if place < group.shape[1]:
            self._num_added += 1  # so that arrays are never compared
            count, code = group[:, place].tolist()
            heapq.heappush(self._heap, (count, code, self._num_added, group, place))

    def pop(self, pair_counts: dict[int, int]) -> int | None:
        """The most frequent pair by its count of now, or None."""
        while self._heap:
            count, code, _, group, place = heapq.heappop(self._heap)
            self._push(group, place + 1)
            now = pair_counts.get(code, 0)
            if now == -count:
                return code
            if now:  # it waited with an older count
                self._push(np.array([[-now], [code]]), 0)
        return None


class _Symbols:
    """Words as symbols, and how often each pair of adjacent symbols occurs."""

    def __init__(self, words: Sequence[str], counts: np.ndarray, first: Sequence[str]) -> None:
        characters = np.frombuffer(("\n" + "\n".join(words) + "\n").encode("utf-32-le"), np.uint32)
        is_between = characters == ord("\n")
        self._word = np.cumsum(is_between, dtype=np.int32) - 1  # [N] of each place
        self._counts = np.append(counts, 0)
        self._at = _numbered(characters, is_between, first)  # [N] symbols
        self._lengths = [0] + [1] * (len(first) - 1)
        order = np.argsort(self._at, kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(self._at, minlength=len(first)))
        # Where each symbol begins, ascending; places that it has left since are removed when they are read.
        self._places = dict(enumerate(np.split(order, ends[:-1])))
        self._num_live = [len(places) for places in self._places.values()]
        self._places[0] = order[:0]
        self.pair_counts = self._count_pairs()

    def _count_pairs(self) -> dict[int, int]:
        pair_counts: dict[int, int] = {}
        for start in range(0, len(self._at), _PLACES_AT_ONCE):
            at = self._at[start : start + _PLACES_AT_ONCE + 1].astype(np.int64)
            places = np.flatnonzero((at[:-1] > 0) & (at[1:] > 0))
            codes, inverse = np.unique(at[places] << _SHIFT | at[places + 1], return_inverse=True)
            sums = np.bincount(inverse, self._weights(places + start))
            for code, count in zip(codes.tolist(), sums.tolist()):
                pair_counts[code] = pair_counts.get(code, 0) + int(count)
        return pair_counts

    def _weights(self, places: np.ndarray) -> np.ndarray:
        """How often the word of each place occurs; as float64, which is exact below 2**53."""
        return self._counts[self._word[places]].astype(np.float64)

    def merge(self, left: int, right: int, merged: int) -> dict[int, int]:
        """Replaces each pair (left, right) by the symbol `merged`; returns the counts of the pairs that this makes."""
        begin = self._occurrences(left, right)
        middle = begin + self._lengths[left]
        end = middle + self._lengths[right]
        before, after = self._at[begin - 1], self._at[end]
        weights = self._weights(begin)
        # Where an occurrence follows another one immediately, both are merged, and no pair (merged, left) remains.
        follows = np.append(False, end[:-1] == begin[1:])
        is_followed = np.append(follows[1:], False)
        made = [
            *self._change(np.where(follows, merged, before), weights, merged, is_left=True),
            *self._change(np.where(is_followed, 0, after), weights, merged, is_left=False),
        ]
        self._change(np.where(follows, 0, before), -weights, left, is_left=True)
        self._change(after, -weights, right, is_left=False)
        self._at[middle - 1] = 0
        self._at[middle] = 0
        self._at[begin] = merged
        self._at[end - 1] = merged
        self._add_places(merged, begin, self._lengths[left] + self._lengths[right])
        self._num_live[left] -= len(begin)
        self._num_live[right] -= len(begin)
        return {code: self.pair_counts[code] for code in made if self.pair_counts.get(code, 0) > 0}

    def _occurrences(self, left: int, right: int) -> np.ndarray:
        """Places where (left, right) begins, ascending; of overlapping ones the first, third ..."""
        if self._num_live[left] <= self._num_live[right]:
            begin = self._live(left)
            begin = begin[self._at[begin + self._lengths[left]] == right]
        else:
            middle = self._live(right)
            begin = middle[self._at[middle - 1] == left] - np.int32(self._lengths[left])
        if left != right:
            return begin
        number = np.arange(len(begin))
        overlaps = np.append(False, np.diff(begin) == self._lengths[left])
        return begin[(number - np.maximum.accumulate(np.where(overlaps, 0, number))) % 2 == 0]

    def _live(self, symbol: int) -> np.ndarray:
        places = self._places[symbol]
        places = places[self._at[places] == symbol]
        self._places[symbol] = places
        return places

    def _add_places(self, merged: int, begin: np.ndarray, length: int) -> None:
        if merged == len(self._lengths):
            self._lengths.append(length)
            self._num_live.append(len(begin))
            self._places[merged] = begin
        else:
            self._num_live[merged] += len(begin)
            self._places[merged] = np.sort(np.append(self._live(merged), begin))

    def _change(self, neighbours: np.ndarray, weights: np.ndarray, symbol: int, is_left: bool) -> list[int]:
        """Adds weights to the pairs of `symbol` with its neighbours, on its left or right; returns these pairs."""
        sums = np.bincount(neighbours, weights)
        found = np.flatnonzero(sums[1:]) + 1  # 0 is no neighbour
        codes = (found << _SHIFT | symbol if is_left else symbol << _SHIFT | found).tolist()
        pair_counts = self.pair_counts
        for code, change in zip(codes, sums[found].tolist()):
            count = pair_counts.get(code, 0) + int(change)
            if count:
                pair_counts[code] = count
            else:
                pair_counts.pop(code, None)
        return codes


def _numbered(characters: np.ndarray, is_between: np.ndarray, first: Sequence[str]) -> np.ndarray:
    """The number in `first` of each character of the words: c at the beginning of a word, ##c after it; 0 between."""
    numbers = {entry: number for number, entry in enumerate(first)}
    codes = np.unique(characters)
    in_word = [chr(code) for code in codes.tolist() if code != ord("\n")]
    table = np.zeros((2, len(codes)), np.int32)
    known = codes != ord("\n")
    table[0, known] = [numbers[char] for char in in_word]
    table[1, known] = [numbers[f"##{char}"] for char in in_word]
    continues = np.append(False, ~is_between[:-1]).astype(np.int8)
    return table[continues, np.searchsorted(codes, characters)]
