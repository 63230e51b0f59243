"""Records cut to fewer tokens, as --rampup_seq_length does it in the first updates.

Of two sequences the longer one loses its last tokens first, as in google-research/bert's truncate_seq_pair. [CLS] and
[SEP] stay, so a cut record is one that could have been made with that length.
"""

from __future__ import annotations

import numpy as np

from bert_pretrain.data.schema import Examples

LEAST_LENGTH = 5  # tokens: [CLS] a [SEP] b [SEP]


def truncate_examples(examples: Examples, max_length: int) -> Examples:
    """The examples [E] with at most max_length tokens each, in arrays of the same shapes.

    Predictions of tokens that are cut become unused slots. The examples must be valid (schema.py), and max_length at
    least LEAST_LENGTH.
    """
    lengths = np.count_nonzero(examples.input_mask, axis=1)  # [E]
    if lengths.max() <= max_length:
        return examples
    is_kept = _kept_tokens(examples.segment_ids, lengths, max_length)
    columns = np.cumsum(is_kept, axis=1) - 1  # [E, S] where a kept token goes
    row, column = np.nonzero(is_kept)
    moved = row, columns[is_kept]

    def cut(values: np.ndarray) -> np.ndarray:
        result = np.zeros_like(values)
        result[moved] = values[row, column]
        return result

    positions = examples.masked_lm_positions
    used = examples.masked_lm_weights > 0  # [E, P]; positions of unused slots may be anything
    places = np.where(used, positions, 0)
    used &= np.take_along_axis(is_kept, places, axis=1)
    return examples._replace(
        input_ids=cut(examples.input_ids),
        input_mask=cut(examples.input_mask),
        segment_ids=cut(examples.segment_ids),
        masked_lm_positions=np.where(used, np.take_along_axis(columns, places, axis=1), 0).astype(positions.dtype),
        masked_lm_ids=np.where(used, examples.masked_lm_ids, 0),
        masked_lm_weights=np.where(used, examples.masked_lm_weights, 0.0).astype(examples.masked_lm_weights.dtype),
    )


def _kept_tokens(segment_ids: np.ndarray, lengths: np.ndarray, max_length: int) -> np.ndarray:
    """[E, S] bool: tokens that stay. Each sequence loses those before its [SEP]."""
    columns = np.arange(segment_ids.shape[1])
    is_token = columns < lengths[:, None]
    num_second = np.count_nonzero(is_token & (segment_ids != 0), axis=1)
    ends = lengths - num_second, lengths  # of the two sequences, behind their [SEP]
    words = np.maximum(ends[0] - 2, 0), np.maximum(num_second - 1, 0)  # without [CLS] and [SEP]
    excess = np.maximum(lengths - max_length, 0)
    of_longer = np.minimum(excess, np.abs(words[0] - words[1]))
    of_both, is_first_longer = excess - of_longer, words[0] > words[1]
    cuts = (
        np.where(is_first_longer, of_longer, 0) + of_both // 2,
        np.where(is_first_longer, 0, of_longer) + (of_both + 1) // 2,
    )
    for end, cut in zip(ends, cuts):
        is_token &= (columns < (end - 1 - cut)[:, None]) | (columns >= (end - 1)[:, None])
    return is_token
