"""Sentences of evaluation shards in which one word is masked: a small test that people can read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.option import directories
from bert_pretrain.data import schema
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.inference.questions import Example

_MIN_TOKENS, _MAX_TOKENS = 8, 24
_ENDS = (".", "?", "!", "[SEP]", "[CLS]")


class Blank(NamedTuple):
    """A sentence with one masked word."""

    example: Example  # [CLS], the sentence with its masked token, [SEP]
    position: int  # of the masked token
    answer: str


def blanks(directory: str, vocabulary: Vocabulary, count: int) -> list[Blank]:
    """The first `count` sentences that have a masked word, at most one of a record.

    directory: one with shards, or several separated by commas.

    ValueError for a directory without shards, or with ids that the vocabulary does not have.
    """
    found: list[Blank] = []
    for ids, masked in _records(directory):
        if ids.max() >= len(vocabulary.entries):
            raise ValueError(f"--held_out_shards: {directory} was made with another vocabulary; give its --vocab_file")
        blank = next(filter(None, (_blank(ids, position, vocabulary) for position in masked)), None)
        found += [blank] if blank else []
        if len(found) == count:
            break
    return found


def text(blank: Blank, vocabulary: Vocabulary) -> str:
    """The sentence, with pieces joined to words."""
    entries = [vocabulary.entries[number] for number in blank.example.word_ids[0][1:-1]]
    return " ".join(entries).replace(" ##", "")


def _records(directory: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each record, its token ids as in the text, and the positions that were masked; [S] and [M]."""
    index = ShardIndex(find_shards(directories(directory)))
    for number in range(index.num_records):
        (record,) = index.read(np.array([number]))
        lengths = schema.record_lengths(record, directory)
        columns = schema.parse_examples(tf.constant([record]), tf.constant([directory]), *lengths)
        example = schema.Examples(*(column.numpy()[0] for column in columns))
        used = example.masked_lm_weights > 0
        ids, positions = example.input_ids.copy(), example.masked_lm_positions[used]
        ids[positions] = example.masked_lm_ids[used]
        yield ids[example.input_mask > 0], positions


def _blank(ids: np.ndarray, position: int, vocabulary: Vocabulary) -> Optional[Blank]:
    """The sentence around a masked token, None where it is short, long, or the token is no whole word."""
    entries = [vocabulary.entries[number] for number in ids]
    is_piece = entries[position].startswith("##") or entries[position + 1].startswith("##")
    begin = max(place for place in range(position) if entries[place] in _ENDS) + 1
    end = min(place for place in range(position, len(entries)) if entries[place] in _ENDS)
    end += entries[end] != "[SEP]"
    if is_piece or not entries[position].isalpha() or not _MIN_TOKENS <= end - begin <= _MAX_TOKENS:
        return None
    sentence = ids[begin:end].copy()
    sentence[position - begin] = vocabulary.id("[MASK]")
    framed = np.concatenate([[vocabulary.id("[CLS]")], sentence, [vocabulary.id("[SEP]")]]).astype(np.int32)
    return Blank(Example(framed[None], np.zeros_like(framed)[None]), position - begin + 1, entries[position])
