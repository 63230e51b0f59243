"""The lines that fill_mask prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bert_pretrain.config.export import FillMaskConfig
from bert_pretrain.inference import held_out, questions, stored_model
from bert_pretrain.inference.network import Network


def lines(config: FillMaskConfig, path: str, texts: Sequence[str]) -> Iterator[str]:
    """Answers for the model at `path`. ValueError for a model or a text that cannot be used."""
    model = stored_model.find(path, "MODEL", config.bert_config_file, config.vocab_file, config.do_lower_case)
    if model.vocabulary is None:
        raise ValueError(f"{path}: there is no vocab.txt beside it; give --vocab_file, the model's vocabulary")
    if len(model.vocabulary.entries) > model.config.vocab_size:
        raise ValueError(
            f"--vocab_file: it has {len(model.vocabulary.entries)} entries, the model {model.config.vocab_size}; give "
            f"the model's own"
        )
    reader = questions.Reader(model.vocabulary, model.lower_case, model.config.max_position_embeddings)
    example = reader.example(*texts) if texts else None
    if len(texts) == 1 and not len(reader.masked(example.word_ids)):
        raise ValueError("the text has no [MASK]; write it where a word is to be found")
    with Network(model.config, model.read()) as network:
        if config.held_out_shards:
            yield from _held_out(network, reader, config)
        elif config.next_sentence:
            yield f"{questions.follows(network, example):.4f}  the probability that the second text follows the first"
        else:
            yield from _masked(network, reader, example, config.top)


def _masked(network: Network, reader: questions.Reader, example: questions.Example, top: int) -> Iterator[str]:
    positions = reader.masked(example.word_ids)
    found = questions.best_words(network, reader.vocabulary, example, positions, top)
    for number, words in enumerate(found, start=1):
        if len(found) > 1:
            yield f"[MASK] {number} of {len(found)}"
        yield from (f"{word.probability:.4f}  {word.entry}" for word in words)


def _held_out(network: Network, reader: questions.Reader, config: FillMaskConfig) -> Iterator[str]:
    yield "held-out sentences with a masked word, the word that stood there, and the model's best words:"
    for blank in held_out.blanks(config.held_out_shards, reader.vocabulary, config.num_sentences):
        (words,) = questions.best_words(network, reader.vocabulary, blank.example, [blank.position], config.top)
        yield f"  {held_out.text(blank, reader.vocabulary)}"
        yield f"    {blank.answer}; " + ", ".join(f"{word.entry} {word.probability:.3f}" for word in words)
