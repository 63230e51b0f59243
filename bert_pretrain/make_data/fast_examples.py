"""Examples of a text in fast mode: pairs, tokens and masks, drawn for many examples at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.masking import Masking, MaskingRule, mask
from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data.instances import Instances, Pairs, assemble, balanced_random_prob, draw_pairs
from bert_pretrain.make_data.tokenized_text import TokenizedText

_EXAMPLES_AT_ONCE = 256  # so that they stay in the processor's cache


def masking_rule(config: ExampleConfig, vocabulary: Vocabulary) -> MaskingRule:
    """The settings of masking, with token ids."""
    return MaskingRule.of(vocabulary, config.masked_lm_prob, config.max_predictions_per_seq, config.do_whole_word_mask)


def draw_examples(
    text: TokenizedText, config: ExampleConfig, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[Instances, Masking]]:
    """Draws the examples of a text; returns them in random order, in blocks."""
    cut = (config.max_seq_length, config.short_seq_prob)
    pairs = draw_pairs(text, *cut, config.dupe_factor, rng, balanced_random_prob(text, *cut))
    order = rng.permutation(len(pairs.a_start))
    rule, cls_id, sep_id = masking_rule(config, vocabulary), vocabulary.id("[CLS]"), vocabulary.id("[SEP]")
    for start in range(0, len(order), _EXAMPLES_AT_ONCE):
        chosen = Pairs(*(column[order[start : start + _EXAMPLES_AT_ONCE]] for column in pairs))
        instances = assemble(text, chosen, config.max_seq_length, cls_id, sep_id)
        yield instances, mask(instances, rule, rng)


def picked(records: Iterable[bytes], count: int) -> Iterable[bytes]:
    """At most `count` of the records, at equal distances, for which all are kept in memory; all of them if 0."""
    if not count:
        return records
    everything = list(records)
    distance = max(1.0, len(everything) / count)
    return [everything[int(number * distance)] for number in range(min(count, len(everything)))]
