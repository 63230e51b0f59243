import numpy as np
import pytest

from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data import tokenized_text
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.tokenized_text import tokenize, tokenize_in_blocks

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")
DOCUMENTS = [["a b", "c"], ["\x00"], ["d d d", "\x00", "a"], ["b"]]


@pytest.fixture
def tokenizer():
    return LineTokenizer(Vocabulary(WORDS), True)


def test_sentences_and_documents_without_tokens_are_left_out(tokenizer):
    text = tokenize(DOCUMENTS, tokenizer)
    assert text.ids.tolist() == [5, 6, 7, 8, 8, 8, 5, 6]
    assert text.ids.dtype == np.uint16
    assert text.sentence_starts.tolist() == [0, 2, 3, 6, 7, 8]
    assert text.document_starts.tolist() == [0, 2, 4, 5]
    assert text.num_documents == 3


def test_reading_by_pieces_changes_nothing(tokenizer, monkeypatch):
    expected = tokenize(DOCUMENTS, tokenizer)
    monkeypatch.setattr(tokenized_text, "_CHARS_AT_ONCE", 1)
    for found, wanted in zip(tokenize(DOCUMENTS, tokenizer), expected):
        assert found.tolist() == wanted.tolist()


def test_blocks_have_their_size_and_a_small_rest_joins_the_last(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenized_text, "_CHARS_AT_ONCE", 1)
    blocks = list(tokenize_in_blocks([["a a"]] * 7, tokenizer, max_tokens=6))
    assert [block.num_documents for block in blocks] == [3, 4]
    assert [len(block.ids) for block in blocks] == [6, 8]


def test_no_text_is_no_block_and_no_document(tokenizer):
    assert list(tokenize_in_blocks([], tokenizer, max_tokens=6)) == []
    assert tokenize([], tokenizer).num_documents == 0
