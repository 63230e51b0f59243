"""An example as text: words joined from their pieces, and what is to be predicted."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from bert_pretrain.check_data.contents import Shown

_CONTINUATION = "##"
_NEVER_CONTINUED = ("[CLS]", "[SEP]")  # a segment whose beginning was cut off may begin within a word


def lines(shown: Shown, entries: Sequence[str], width: int) -> list[str]:
    """A heading, and the text in lines of at most `width` characters."""
    second = "the second sentence is random" if shown.is_random_next else "the second sentence follows the first"
    wrapped = textwrap.wrap(text(shown, entries), max(40, width), initial_indent="    ", subsequent_indent="    ")
    return [f"example {shown.name}, {second}:", *wrapped]


def text(shown: Shown, entries: Sequence[str]) -> str:
    """'[CLS] the [MASK:cat] sat [SEP] on [mat:it] [SEP]'; [x:y] is x in the input where y is to be predicted."""
    words: list[str] = []
    for column, token in enumerate(shown.token_ids):
        piece = original = _entry(token, entries)
        written = piece
        if column in shown.labels:
            original = _entry(shown.labels[column], entries)
            written = f"[{'MASK' if piece == '[MASK]' else piece}:{original}]"
        continues = original.startswith(_CONTINUATION) and len(original) > len(_CONTINUATION)
        if continues and words and words[-1] not in _NEVER_CONTINUED:
            words[-1] += written[len(_CONTINUATION) :] if written == piece else written
        else:
            words.append(written)
    return " ".join(words)


def _entry(token: int, entries: Sequence[str]) -> str:
    """An entry of the vocabulary; a number that is in none is written as such, and so are control characters."""
    if not 0 <= token < len(entries):
        return f"[id {token}]"
    entry = entries[token]
    return entry if entry.isprintable() else ascii(entry)[1:-1]
