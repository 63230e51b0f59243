"""Text of any size: the embedded demo's text over and over, with other rare words in each copy.

    python -m benchmarks.large_text --megabytes=1000 --output=FILE [--seed=0] [--text=FILE]

A word of letters that occurs at most 20 times in the first text is replaced in each copy by a word drawn from Zipf's
law (exponent 1.15, no largest rank): the first half of one word of the text and the second half of another. So the
number of distinct words grows with the text, as it does in text that people write. Prints how many words and distinct
words, both as divided at spaces, the text has.
"""

from __future__ import annotations

import argparse
import pathlib
from collections import Counter

import numpy as np

_MAX_RARE_COUNT = 20
_ZIPF_EXPONENT = 1.15
_MAX_RANK = 1 << 40


class Copies:
    """Copies of a text with other rare words."""

    def __init__(self, text: str, seed: int) -> None:
        self._pieces = text.split(" ")
        counts = Counter(self._pieces)
        words = sorted(piece for piece in counts if piece.isalpha() and len(piece) > 1)
        rare = {word for word in words if counts[word] <= _MAX_RARE_COUNT}
        self._places = [place for place, piece in enumerate(self._pieces) if piece in rare]
        self._words = [words[number] for number in np.random.default_rng(0).permutation(len(words))]
        self._random = np.random.default_rng(seed)

    def next(self) -> str:
        """The text with its rare words replaced."""
        # The inverse of Pareto's distribution function.
        ranks = self._random.random(len(self._places)) ** (-1.0 / (_ZIPF_EXPONENT - 1.0))
        pieces = self._pieces.copy()
        for place, rank in zip(self._places, np.minimum(ranks, _MAX_RANK).astype(np.int64).tolist()):
            pieces[place] = self._word(rank)
        return " ".join(pieces)

    def _word(self, rank: int) -> str:
        repeat, number = divmod(rank, len(self._words))
        first, second = self._words[number], self._words[(number * 31 + repeat * 7919) % len(self._words)]
        return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]


def write(path: pathlib.Path, text: str, num_bytes: int, seed: int) -> None:
    """Writes copies until the file has num_bytes."""
    copies = Copies(text, seed)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while file.tell() < num_bytes:
            file.write(copies.next().rstrip("\n") + "\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=pathlib.Path, help="the first text; default: the embedded demo's")
    arguments = parser.parse_args()
    write(arguments.output, first_text(arguments.text), int(arguments.megabytes * 1e6), arguments.seed)
    with arguments.output.open(encoding="utf-8") as file:
        counts = Counter(word for line in file for word in line.split())
    print(
        f"{arguments.output}: {arguments.output.stat().st_size} bytes, {sum(counts.values())} words, "
        f"{len(counts)} distinct"
    )


def first_text(path: pathlib.Path | None) -> str:
    """The text of a file, or the demo's."""
    if path is not None:
        return path.read_text(encoding="utf-8")
    from bert_pretrain.make_data.demo import demo_documents

    return "\n\n".join("\n".join(document) for document in demo_documents())


if __name__ == "__main__":
    main()
