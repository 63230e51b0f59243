"""What fill_mask prints: the words at a [MASK], whether a text follows another, and masked words of held-out sentences.

Texts become token ids, logits become words with probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.config.export import FillMaskConfig
from bert_pretrain.data import schema
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.data.vocab import NUM_FREQUENT_TOKENS, Vocabulary, rare_token_ids
from bert_pretrain.inference.stored_model import Network, StoredModel, find_stored_model
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.model.padded import Outputs
from bert_pretrain.system.files import split_names

_MASK = "[MASK]"
_CHECKED_RECORDS = 64  # before a run begins
_COUNTED_RECORDS = 4096
_MIN_TOKENS, _MAX_TOKENS = 8, 24  # of a held-out sentence, for people to read
_SENTENCE_ENDS = (".", "?", "!", "[SEP]", "[CLS]")


def answer_lines(config: FillMaskConfig, path: str, texts: Sequence[str]) -> Iterator[str]:
    """Answers for the model at `path`. ValueError for a model or a text that cannot be used."""
    model = _find_model(config, path)
    reader = QuestionReader(model.found_vocabulary, model.lower_case, model.config.max_position_embeddings)
    question = reader.question(*texts) if texts else None
    if question is not None and len(texts) == 1 and not len(reader.masked_positions(question)):
        raise ValueError("the text has no [MASK]; write it where a word is to be found")
    with Network(model.config, model.read_values()) as network:
        if config.held_out_shards:
            yield from _held_out_lines(network, reader, config.held_out_shards, config)
            return
        assert question is not None, "fill_mask.py requires texts unless there are held-out shards"
        if config.next_sentence:
            share = next_sentence_probability(network, question)
            yield f"{share:.4f}  the probability that the second text follows the first"
        else:
            yield from _masked_lines(network, reader, question, config.top)


def check_answers(config: FillMaskConfig, path: str, run: dict[str, Any]) -> None:
    """ValueError where answer_lines would fail after a run in the folder `path`, whose run.json will hold `run`."""
    model = _find_model(config, path, run)
    assert config.held_out_shards, "a run asks for sentences of its evaluation data"
    for ids, _ in itertools.islice(_read_texts(config.held_out_shards), _CHECKED_RECORDS):
        _check_ids(ids, model.found_vocabulary, config.held_out_shards)


def _find_model(config: FillMaskConfig, path: str, run: Optional[dict[str, Any]] = None) -> StoredModel:
    """The model with its vocabulary. ValueError without one, or with one of another model."""
    model = find_stored_model(path, "MODEL", config.bert_config_file, config.vocab_file, config.do_lower_case, run)
    if model.vocabulary is None:
        raise ValueError(f"{path}: there is no vocab.txt beside it; give --vocab_file, the model's vocabulary")
    model.check_vocabulary()
    return model


def _masked_lines(network: Network, reader: QuestionReader, question: Question, top: int) -> Iterator[str]:
    found = best_words(network, reader.vocabulary, question, reader.masked_positions(question), top)
    for number, words in enumerate(found, start=1):
        if len(found) > 1:
            yield f"[MASK] {number} of {len(found)}"
        yield from (f"{word.probability:.4f}  {word.entry}" for word in words)


def _held_out_lines(network: Network, reader: QuestionReader, shards: str, config: FillMaskConfig) -> Iterator[str]:
    yield (
        f"the first held-out sentences with a masked word that is not among the {NUM_FREQUENT_TOKENS} most frequent, "
        "the word that stood there, and the model's best words:"
    )
    for blank in find_blanks(shards, reader.vocabulary, config.num_sentences):
        (words,) = best_words(network, reader.vocabulary, blank.question, [blank.position], config.top)
        yield f"  {blank_text(blank, reader.vocabulary)}"
        yield f"    {blank.answer}; " + ", ".join(f"{word.entry} {word.probability:.3f}" for word in words)


class Question(NamedTuple):
    """One text or two as an example without padding."""

    word_ids: np.ndarray  # [1, S] int32
    type_ids: np.ndarray  # [1, S] int32


class QuestionReader:
    """Makes token ids of text. [MASK] in a text is the masked token; all else is text, also [SEP]."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool, max_tokens: int) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = LineTokenizer(vocabulary, lower_case)
        self._mask, self._cls, self._sep = (vocabulary.id(entry) for entry in (_MASK, "[CLS]", "[SEP]"))
        self._max_tokens = max_tokens

    def question(self, *texts: str) -> Question:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP].

        ValueError for text that is longer than the model allows.
        """
        segments = [np.append(self._ids(text), self._sep) for text in texts]
        ids = np.concatenate([[self._cls], *segments]).astype(np.int32)
        if len(ids) > self._max_tokens:
            raise ValueError(f"the text has {len(ids)} tokens, the model takes {self._max_tokens}; shorten it")
        first = len(segments[0]) + 1
        return Question(ids[None], (np.arange(len(ids)) >= first).astype(np.int32)[None])

    def masked_positions(self, question: Question) -> np.ndarray:
        """Where the question has [MASK]; [M]."""
        return np.flatnonzero(question.word_ids[0] == self._mask)

    def _ids(self, text: str) -> np.ndarray:
        parts = [" ".join(part.split("\n")) for part in text.split(_MASK)]
        ids, num_ids = self._tokenizer.encode(parts)
        ends = np.cumsum(num_ids)[:-1]
        return np.concatenate([np.append(part, self._mask) for part in np.split(ids, ends)])[:-1]


class LikelyWord(NamedTuple):
    """An entry of the vocabulary and its probability at a [MASK]."""

    entry: str
    probability: float


def best_words(
    network: Network, vocabulary: Vocabulary, question: Question, positions: Iterable[int], top: int
) -> list[list[LikelyWord]]:
    """The `top` most probable words at each position of the question, best first."""
    logits = _run_network(network, question).masked_lm_logits[0]  # [S, V]
    found = []
    for position in positions:
        # Rows of the output beyond the vocabulary have no word.
        probabilities = softmax(logits[position])[: len(vocabulary.entries)]
        best = np.argsort(-probabilities, kind="stable")[:top]
        found.append([LikelyWord(vocabulary.entries[number], float(probabilities[number])) for number in best])
    return found


def next_sentence_probability(network: Network, question: Question) -> float:
    """The probability that the second text of the question follows the first."""
    return float(softmax(_run_network(network, question).next_sentence_logits[0])[0])


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits [V] -> probabilities [V] float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def _run_network(network: Network, question: Question) -> Outputs:
    return network.run(question.word_ids, np.ones_like(question.word_ids), question.type_ids)


class Blank(NamedTuple):
    """A sentence of evaluation shards with one masked word: a small test that people can read."""

    question: Question  # [CLS], the sentence with its masked token, [SEP]
    position: int  # of the masked token
    answer: str


def find_blanks(directory: str, vocabulary: Vocabulary, count: int) -> list[Blank]:
    """The first `count` sentences that have a masked word which is not frequent, at most one of a record.

    Frequent are the NUM_FREQUENT_TOKENS tokens that are masked most often in the first 4,096 records: any model guesses
    those. directory: one with shards, or several separated by commas.

    ValueError for a directory without shards, or with ids that the vocabulary does not have.
    """
    texts = itertools.islice(_read_texts(directory), _COUNTED_RECORDS)
    counts = np.zeros(len(vocabulary.entries), np.int64)
    for ids, masked in texts:
        _check_ids(ids, vocabulary, directory)
        np.add.at(counts, ids[masked], 1)
    is_rare = np.zeros(len(counts), bool)
    is_rare[rare_token_ids(counts)] = True
    found: list[Blank] = []
    for ids, masked in _read_texts(directory):
        _check_ids(ids, vocabulary, directory)
        wanted = masked[is_rare[ids[masked]]]
        blank = next(filter(None, (_blank_around(ids, position, vocabulary) for position in wanted)), None)
        found += [blank] if blank else []
        if len(found) == count:
            break
    return found


def _check_ids(ids: np.ndarray, vocabulary: Vocabulary, directory: str) -> None:
    if ids.max() >= len(vocabulary.entries):
        raise ValueError(f"--held_out_shards: {directory} was made with another vocabulary; give its --vocab_file")


def blank_text(blank: Blank, vocabulary: Vocabulary) -> str:
    """The sentence with its [MASK], pieces joined to words."""
    entries = [vocabulary.entries[number] for number in blank.question.word_ids[0][1:-1]]
    return " ".join(entries).replace(" ##", "")


def _read_texts(directory: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each record, its token ids as in the text, and the positions that were masked; [S] and [M]."""
    index = ShardIndex(find_shards(split_names(directory)))
    for number in range(index.num_records):
        (record,) = index.read(np.array([number]))
        lengths = schema.record_lengths(record, directory)
        example = schema.Examples(*(column[0] for column in schema.read_examples([record], [directory], *lengths)))
        used = example.masked_lm_weights > 0
        ids, positions = example.input_ids.copy(), example.masked_lm_positions[used]
        ids[positions] = example.masked_lm_ids[used]
        yield ids[example.input_mask > 0], positions


def _blank_around(ids: np.ndarray, position: int, vocabulary: Vocabulary) -> Optional[Blank]:
    """The sentence around a masked token, None where it is short, long, or the token is no whole word."""
    entries = [vocabulary.entries[number] for number in ids]
    is_piece = entries[position].startswith("##") or entries[position + 1].startswith("##")
    begin = max(place for place in range(position) if entries[place] in _SENTENCE_ENDS) + 1
    end = min(place for place in range(position, len(entries)) if entries[place] in _SENTENCE_ENDS)
    end += entries[end] != "[SEP]"
    if is_piece or not entries[position].isalpha() or not _MIN_TOKENS <= end - begin <= _MAX_TOKENS:
        return None
    sentence = ids[begin:end].copy()
    sentence[position - begin] = vocabulary.id("[MASK]")
    framed = np.concatenate([[vocabulary.id("[CLS]")], sentence, [vocabulary.id("[SEP]")]]).astype(np.int32)
    return Blank(Question(framed[None], np.zeros_like(framed)[None]), position - begin + 1, entries[position])
