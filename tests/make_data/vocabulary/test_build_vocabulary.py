"""What a vocabulary's words become."""

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.vocabulary import build_vocabulary


def test_coverage_counts_pieces_and_unknown_words(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Ab ab.\n\nabb xyz ab " + "a" * 201)
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "a", "##b", "ab", "."))
    coverage = build_vocabulary.measure_coverage([corpus.whole_file(str(path))], vocabulary, lower_case=True)
    # ab three times, "." and two pieces of abb; xyz and the long word are [UNK].
    assert coverage == build_vocabulary.Coverage(words=7, pieces=8, unknown_words=2)
    assert str(coverage) == "1.143 pieces a word, 28.5714 % of the words [UNK], 7 words"


def test_the_last_documents_are_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"Document {number}.\nIts second line." for number in range(50_000)))
    spans = [corpus.whole_file(str(path))]
    text, held_out = build_vocabulary.hold_out_end(spans)
    documents = list(corpus.read_documents(text)), list(corpus.read_documents(held_out))
    assert documents[0] + documents[1] == list(corpus.read_documents(spans))
    assert 400 < len(documents[1]) <= 500
    path.write_text("too short\n\nto hold any out\n")
    assert build_vocabulary.hold_out_end([corpus.whole_file(str(path))])[1] == []
