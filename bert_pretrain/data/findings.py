"""What statistics of a data set's records say about training on it: the one list of judgements.

make_data counts what it writes, check_data what it reads, and a run a sample of its shards; all three say the same of
the same numbers. A fault means that nothing can be learned, and a run refuses it.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Optional

_NUM_SPECIAL_TOKENS = 3  # of a pair: [CLS], [SEP], [SEP]; a single sequence has one less
# Set by a script whose last program tells the findings, for the programs before it: each is told once.
TOLD_ELSEWHERE = "BERT_PRETRAIN_FINDINGS_TOLD"

_FEW = 0.01  # a share of the records that is worth a note only
_MASKED_SHARES = 0.10, 0.45  # Devlin et al. mask 15 %, MosaicBERT and ModernBERT 30 %
_RECIPE = 0.8, 0.1, 0.1  # [MASK], another token, unchanged
_REPLACEMENT_DIFFERENCE = 0.03
_RANDOM_SHARES = 0.45, 0.55
_CHANCE = 3  # standard errors of a share that chance explains
_LEAST_JUDGED = 10  # records; of fewer, chance makes all pairs alike
_UNKNOWN_SHARES = 0.01, 0.5  # more says that the vocabulary was made for other text; that little else is learned
_PADDING_SHARE = 0.75
_MAX_DUPLICATE_SHARE = 0.01  # short documents give equal examples in several passes; more duplicates are a mistake
_UNUSED_SHARE = 0.1  # of the model's vocabulary; a size is often rounded up


class Severity(enum.Enum):
    """How much a finding matters."""

    FAULT = "fault"  # nothing can be learned from these data, or only what is wrong
    WARNING = "warning"  # a part of the training is in vain
    NOTE = "note"  # unusual


class Finding(NamedTuple):
    """One judgement: what was found, in numbers, and what helps."""

    severity: Severity
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.line()

    def line(self, place: str = "") -> str:
        """What a program prints; place: of what it was found, with the mark that ends it."""
        return f"{self.severity.value}: {place}{self.text}" + (f"; {self.remedy}" if self.remedy else "")


class RecordStatistics(NamedTuple):
    """Sums over records; None where it is not known without a vocabulary."""

    records: int = 0
    slots: int = 0  # tokens and padding
    tokens: int = 0
    predictions: int = 0
    without_prediction: int = 0  # records
    with_one_segment: int = 0  # records whose segment ids are all 0
    random_next: int = 0  # records
    mask_tokens: Optional[int] = None  # predictions that the input shows as [MASK]
    kept_tokens: Optional[int] = None  # predictions that the input shows as they are
    unknown: Optional[int] = None  # [UNK] in the text, before masking

    @property
    def text_tokens(self) -> int:
        """Tokens other than [CLS] and [SEP]."""
        return self.tokens - _NUM_SPECIAL_TOKENS * self.records + self.with_one_segment

    @property
    def all_single(self) -> bool:
        """Whether all records are single sequences: segment ids of 0 alone, and the same next-sentence label."""
        return self.with_one_segment == self.records and self.random_next in (0, self.records)

    @classmethod
    def sum_of(cls, parts: Iterable[RecordStatistics]) -> RecordStatistics:
        """Of several data sets together; what is not known of one is not known of all."""
        sums: dict[str, int] = {}
        for name, column in zip(cls._fields, zip(*parts)):
            known = [number for number in column if number is not None]
            if len(known) == len(column):
                sums[name] = sum(known)
        return cls(**sums)


def judge_records(found: RecordStatistics, next_sentence_weight: Optional[float] = None) -> list[Finding]:
    """What the records say by themselves, to a run with this --next_sentence_weight; None: it is not known.

    With 0 the records need not teach which sentence follows.
    """
    if not found.records:
        return [Finding(Severity.FAULT, "there are no records", "make shards from more text")]
    if found.text_tokens <= 0:
        text = f"the {found.records} records hold no text, only special tokens and padding"
        return [Finding(Severity.FAULT, text, "make the shards from text")]
    found_all = [*_judge_predictions(found), *_judge_masking(found)]
    if next_sentence_weight != 0:
        found_all += _judge_pairs(found, is_trained=next_sentence_weight is not None)
    return severest_first([*found_all, *_judge_unknown(found), *_judge_padding(found)])


def _judge_pairs(found: RecordStatistics, is_trained: bool) -> list[Finding]:
    """What the records teach of the next-sentence task; is_trained: whether a run is about to train it."""
    if not found.all_single:
        return [*_judge_segments(found), *_judge_next_sentences(found)]
    text = (
        f"all {found.records} records are single sequences (segment ids of 0 alone, one next-sentence label), so the "
        "next-sentence task and the second segment's embedding learn nothing from them"
    )
    remedy = "train on them with --next_sentence_weight=0, or make pairs: make_data without --single_sequence"
    return [Finding(Severity.WARNING if is_trained else Severity.NOTE, text, remedy)]


def severest_first(found: Iterable[Finding]) -> list[Finding]:
    """Faults, then warnings, then notes; those of one severity stay in their order."""
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def _judge_predictions(found: RecordStatistics) -> Iterator[Finding]:
    without, number = found.without_prediction, found.records
    remedy = (
        "allow more predictions (--max_predictions_per_seq of make_data), or leave --do_whole_word_mask out: a word is "
        "masked only where all its pieces fit"
    )
    if without == number:
        text = f"none of the {number} records has a token to predict, so masked-LM learns nothing"
        yield Finding(Severity.FAULT, text, remedy)
    elif without:
        severity = Severity.WARNING if without > _FEW * number else Severity.NOTE
        yield Finding(
            severity, f"{without} of {number} records ({without / number:.2%}) have no token to predict", remedy
        )


def _judge_masking(found: RecordStatistics) -> Iterator[Finding]:
    share, (low, high) = found.predictions / found.tokens, _MASKED_SHARES
    if found.predictions and not low <= share <= high:
        remedy = "--masked_lm_prob and --max_predictions_per_seq of make_data set it"
        text = f"{share:.1%} of the tokens are to be predicted, recipes have 15 to 30 %"
        yield Finding(Severity.NOTE, text, remedy)
    if found.predictions and found.mask_tokens is not None and found.kept_tokens is not None:
        masks, kept = found.mask_tokens / found.predictions, found.kept_tokens / found.predictions
        others = max(0.0, 1 - masks - kept)
        if max(
            abs(one - other) for one, other in zip((masks, others, kept), _RECIPE)
        ) > _REPLACEMENT_DIFFERENCE + _chance(found.predictions):
            text = f"{masks:.0%}, {others:.0%} and {kept:.0%} of the predictions are [MASK], another token, unchanged"
            yield Finding(Severity.NOTE, text, "BERT's recipe is 80, 10, 10")


def _judge_segments(found: RecordStatistics) -> Iterator[Finding]:
    alone, number = found.with_one_segment, found.records
    if not alone:
        return
    remedy = "segment_ids are 1 from the second sentence on; make the shards with bert_pretrain.make_data"
    if alone < number:
        severity = Severity.WARNING if alone > _FEW * number else Severity.NOTE
        text = f"{alone} of {number} records ({alone / number:.2%}) have segment ids of 0 alone"
        yield Finding(severity, text, remedy)
    else:
        text = (
            f"the segment ids of all {number} records are 0, although {found.random_next} of them are labelled as "
            f"pairs with a random second sentence"
        )
        yield Finding(Severity.FAULT, text, remedy)


def _judge_next_sentences(found: RecordStatistics) -> Iterator[Finding]:
    random, number = found.random_next, found.records
    share, (low, high) = random / number, _RANDOM_SHARES
    if random in (0, number) and number >= _LEAST_JUDGED:
        what = "all" if random else "none"
        text = f"{what} of the {number} second sentences are random, so the next-sentence task teaches nothing"
        yield Finding(
            Severity.WARNING,
            text,
            "give make_data one sentence a line, and a blank line only between documents, not after each sentence"
            if random
            else "make the shards with bert_pretrain.make_data, or train on masked words alone with "
            "--next_sentence_weight=0",
        )
    elif not low <= share <= high and abs(share - 0.5) > _chance(number):
        yield Finding(
            Severity.NOTE,
            f"{share:.1%} of the second sentences are random, BERT's recipe has 50 %",
            "a sentence that fills a record, or is alone in its document, always gets a random one: give make_data one "
            "sentence a line, and a blank line only between documents",
        )


def _judge_unknown(found: RecordStatistics) -> Iterator[Finding]:
    if found.unknown is None:
        return
    share, (most, useless) = found.unknown / found.text_tokens, _UNKNOWN_SHARES
    if share > most:
        severity = Severity.FAULT if share > useless else Severity.WARNING
        text = (
            f"{share:.2%} of the text's tokens are [UNK]: the vocabulary lacks characters or letter case of this text"
        )
        yield Finding(severity, text, "make_data --train_vocab makes one from it; a cased one needs --nodo_lower_case")


def _judge_padding(found: RecordStatistics) -> Iterator[Finding]:
    share = 1 - found.tokens / found.slots
    if share > _PADDING_SHARE:
        held, each = found.tokens / found.records, found.slots / found.records
        text = f"{share:.1%} of the records is padding: they hold {held:.1f} of {each:.0f} tokens on average"
        remedy = (
            "documents of one or two short sentences give such records: put a blank line only between documents, or "
            "make the shards with a smaller --max_seq_length"
        )
        yield Finding(Severity.WARNING, text, remedy)


def _chance(number: int) -> float:
    """What a share of `number` differs from half by chance."""
    return _CHANCE * 0.5 / number**0.5


def judge_documents(num_single: int, num_outputs: int) -> list[Finding]:
    """What the number of shards whose text is a single document says."""
    if not num_single:
        return []
    text = (
        f"the text of {num_single} of {num_outputs} shards is a single document, so their random second sentences come "
        "from the same document"
    )
    return [Finding(Severity.WARNING, text, "put blank lines between documents, or make fewer shards")]


def judge_duplicates(num_repeats: int, num_records: int, where: str) -> list[Finding]:
    """What records that repeat others say; `where` names some."""
    if not num_repeats:
        return []
    share = num_repeats / max(1, num_records)
    text = f"{num_repeats} of {num_records} records ({share:.2%}) repeat others: {where}"
    if share > _MAX_DUPLICATE_SHARE:
        return [Finding(Severity.FAULT, text, "was a shard copied, or made twice? remove the copy")]
    return [Finding(Severity.NOTE, text, "short documents give equal examples in several passes")]


def judge_vocabulary(
    num_entries: int, vocab_size: int, num_framed: int, num_records: int, max_id: int, vocab_file: str
) -> list[Finding]:
    """Whether vocabulary, model and records belong together.

    num_entries: of the vocabulary; vocab_size: of the model; num_framed: how many of the records begin with [CLS] and
    end with [SEP]; max_id: the largest token id in them.
    """
    found = []
    own = "give the vocabulary with which the shards were made, and the bert_config.json for it"
    if max_id >= num_entries:
        text = f"the records have token ids up to {max_id}, {vocab_file} has {num_entries} entries"
        found.append(Finding(Severity.FAULT, text, own))
    elif num_framed < num_records:
        severity = Severity.WARNING if num_framed else Severity.FAULT
        text = f"{num_records - num_framed} of {num_records} records are not [CLS] ... [SEP] by the ids of {vocab_file}"
        found.append(Finding(severity, text, own))
    if num_entries > vocab_size:
        text = f"{vocab_file} has {num_entries} entries, the model a vocab_size of {vocab_size}"
        found.append(Finding(Severity.WARNING, text, own))
    elif not found and num_entries < (1 - _UNUSED_SHARE) * vocab_size:
        text = f"the model has a vocab_size of {vocab_size}, but {vocab_file} {num_entries} entries"
        remedy = f"the rest is never used: a bert_config.json with a vocab_size of {num_entries} trains faster"
        found.append(Finding(Severity.NOTE, text, remedy))
    return found


def shown_findings(found: Sequence[Finding]) -> list[Finding]:
    """Those that a program prints: all, or where a script's later program tells them, faults alone."""
    told = bool(os.environ.get(TOLD_ELSEWHERE))
    return [finding for finding in found if finding.severity is Severity.FAULT or not told]
