"""Text into padded examples, and logits into words with probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.inference.network import Network
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.model.padded import Outputs

_MASK = "[MASK]"


class Word(NamedTuple):
    """An entry of the vocabulary and its probability at a [MASK]."""

    entry: str
    probability: float


class Example(NamedTuple):
    """One example, without padding."""

    word_ids: np.ndarray  # [1, S] int32
    type_ids: np.ndarray  # [1, S] int32


class Reader:
    """Makes token ids of text. [MASK] in a text is the masked token; all else is text, also [SEP]."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool, max_tokens: int) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = LineTokenizer(vocabulary, lower_case)
        self._mask, self._cls, self._sep = (vocabulary.id(entry) for entry in (_MASK, "[CLS]", "[SEP]"))
        self._max_tokens = max_tokens

    def example(self, *texts: str) -> Example:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP].

        ValueError for text that is longer than the model allows.
        """
        segments = [np.append(self._ids(text), self._sep) for text in texts]
        ids = np.concatenate([[self._cls], *segments]).astype(np.int32)
        if len(ids) > self._max_tokens:
            raise ValueError(f"the text has {len(ids)} tokens, the model takes {self._max_tokens}; shorten it")
        first = len(segments[0]) + 1
        return Example(ids[None], (np.arange(len(ids)) >= first).astype(np.int32)[None])

    def masked(self, word_ids: np.ndarray) -> np.ndarray:
        """The positions of [MASK] in word ids [1, S]."""
        return np.flatnonzero(word_ids[0] == self._mask)

    def _ids(self, text: str) -> np.ndarray:
        parts = [" ".join(part.split("\n")) for part in text.split(_MASK)]
        ids, num_ids = self._tokenizer.encode(parts)
        ends = np.cumsum(num_ids)[:-1]
        return np.concatenate([np.append(part, self._mask) for part in np.split(ids, ends)])[:-1]


def best_words(
    network: Network, vocabulary: Vocabulary, example: Example, positions: Sequence[int], top: int
) -> list[list[Word]]:
    """The `top` most probable words at each position of the example, best first."""
    logits = _run(network, example).masked_lm_logits[0]  # [S, V]
    found = []
    for position in positions:
        # Rows of the output beyond the vocabulary have no word.
        probabilities = softmax(logits[position])[: len(vocabulary.entries)]
        best = np.argsort(-probabilities, kind="stable")[:top]
        found.append([Word(vocabulary.entries[number], float(probabilities[number])) for number in best])
    return found


def follows(network: Network, example: Example) -> float:
    """The probability that the second segment of the example follows the first."""
    return float(softmax(_run(network, example).next_sentence_logits[0])[0])


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits [V] -> probabilities [V] float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def _run(network: Network, example: Example) -> Outputs:
    return network.run(example.word_ids, np.ones_like(example.word_ids), example.type_ids)
