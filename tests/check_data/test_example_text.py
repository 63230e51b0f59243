from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.check_data import example_text
from bert_pretrain.check_data.contents import Shown

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "play", "##ing", "##s", "sat", "\x1b[2J", "##"]
IDS = {entry: number for number, entry in enumerate(ENTRIES)}


def shown(tokens: str, labels: dict[int, str]) -> Shown:
    return Shown("a:0", [IDS[token] for token in tokens.split()], {at: IDS[word] for at, word in labels.items()}, True)


def test_words_are_joined_and_predictions_marked():
    tokens = "[CLS] the [MASK] play [MASK] [SEP] ##s sat cat the [SEP]"
    found = example_text.text(shown(tokens, {2: "cat", 4: "##ing", 8: "the", 9: "the"}), ENTRIES)
    assert found == "[CLS] the [MASK:cat] play[MASK:##ing] [SEP] ##s sat [cat:the] [the:the] [SEP]"


def test_ids_without_entry_and_control_characters_are_written_plainly():
    found = example_text.text(Shown("a:0", [2, 99, -1, 11], {}, False), ENTRIES)
    assert found == "[CLS] [id 99] [id -1] \\x1b[2J"


words = st.lists(st.tuples(st.sampled_from(["the", "cat", "play", "sat"]), st.lists(st.sampled_from(["ing", "s"]))))


@given(words, st.randoms(use_true_random=False))
def test_with_the_predictions_put_in_it_is_the_text(text, rng):
    """The words, made of pieces that are masked at random, come back."""
    pieces = [piece for word, ends in text for piece in (word, *(f"##{end}" for end in ends))]
    labels = {column: piece for column, piece in enumerate(pieces) if rng.random() < 0.4}
    tokens = [
        rng.choice(["[MASK]", "cat", piece]) if column in labels else piece for column, piece in enumerate(pieces)
    ]
    written = example_text.text(shown(" ".join(tokens), labels), ENTRIES)
    assert re.sub(r"\[\S+?:(?:##)?(\w+)\]", r"\1", written) == " ".join(word + "".join(ends) for word, ends in text)


def test_lines_keep_to_the_width():
    example = shown("[CLS] " + "the cat " * 50 + "[SEP]", {})
    heading, *lines = example_text.lines(example, ENTRIES, 60)
    assert heading == "example a:0, the second sentence is random:"
    assert max(map(len, lines)) <= 60 and " ".join("".join(lines).split()).startswith("[CLS] the cat")
