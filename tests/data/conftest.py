import numpy as np
import pytest

from bert_pretrain.data.schema import Examples


@pytest.fixture
def make_examples():
    """Examples of the given lengths: example i is the token i + 1 repeated, so a wrong row is seen at a glance."""

    def make(lengths, seq_length=16, max_predictions=3):
        lengths = np.asarray(lengths)[:, None]
        number = np.arange(1, len(lengths) + 1)[:, None]
        columns, slots = np.arange(seq_length), np.arange(max_predictions)
        mask = (columns < lengths).astype(np.int32)
        weights = (slots < np.minimum(lengths, max_predictions - number % 2)).astype(np.float32)
        return Examples(
            input_ids=(mask * number).astype(np.int32),
            input_mask=mask,
            segment_ids=(mask * (columns >= lengths // 2)).astype(np.int32),
            masked_lm_positions=(np.minimum(slots, lengths - 1) * (weights > 0)).astype(np.int32),
            masked_lm_ids=((100 * number + slots) * (weights > 0)).astype(np.int32),
            masked_lm_weights=weights,
            next_sentence_labels=(number[:, 0] % 2).astype(np.int32),
        )

    return make
