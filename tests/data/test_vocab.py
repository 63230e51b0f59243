"""Reading a vocab.txt."""

import pytest

from bert_pretrain.data import vocab
from tests.references import google_data


def test_vocabulary_is_read_as_google_reads_it(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\r\n [UNK] \n[CLS]\n[SEP]\n[CLS]\n[MASK]\n\nword")
    vocabulary = vocab.load_vocabulary(str(path))
    assert vocabulary.entries == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[CLS]", "[MASK]", "", "word")
    assert list(vocabulary.numbered().items()) == list(google_data.load_vocab(str(path)).items())
    assert vocabulary.id("[CLS]") == 4


@pytest.mark.parametrize("before, after", [(b"\xef\xbb\xbf", b""), (b"", b"\n\n \n"), (b"\xef\xbb\xbf", b"\r\n\r\n")])
def test_a_byte_order_mark_and_blank_lines_at_the_end_are_read_past(tmp_path, before, after):
    path = tmp_path / "vocab.txt"
    path.write_bytes(before + b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword" + after)
    vocabulary = vocab.load_vocabulary(str(path))
    assert vocabulary.entries == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word")
    assert vocabulary.numbered()["[PAD]"] == 0


@pytest.mark.parametrize(
    "content, message",
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"vocab.txt has no \[MASK\] among its 5 entries"),
        (b"", r"has no \[UNK\], \[CLS\], \[SEP\], \[MASK\] among its 0 entries"),
        (b"[PAD]\n\xff\n", "is not UTF-8"),
    ],
)
def test_unusable_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        vocab.load_vocabulary(str(path))


def test_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        vocab.load_vocabulary(str(tmp_path / "vocab.txt"))
