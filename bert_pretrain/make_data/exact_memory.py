"""How much memory exact mode needs for a text, estimated from a sample before the work begins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.instances import NUM_SPECIAL_TOKENS
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.tokenized_text import tokenize

_SAMPLE_BYTES = 1_000_000
_FIXED_BYTES = 500_000_000  # the program, and the tokenizer's cache when it is full
_BYTES_PER_TOKEN, _BYTES_PER_SENTENCE, _BYTES_PER_DOCUMENT, _BYTES_PER_EXAMPLE = 2.2, 32, 64, 35
_EXAMPLES_PER_CHUNK = 1.6  # a random second sentence leaves text for one example more


class MemoryNeed(NamedTuple):
    """What exact mode needs for a shard, as estimated from the text's first documents."""

    bytes_per_byte: float  # of memory, of text

    def of(self, num_bytes: int) -> int:
        """Peak memory in bytes for a shard of num_bytes of text."""
        return _FIXED_BYTES + int(num_bytes * self.bytes_per_byte)

    def num_shards(self, num_bytes: int, max_memory: float) -> int:
        """Into how many shards num_bytes of text must be divided, so that each needs less than max_memory."""
        # Shards are cut between documents and not quite equal.
        return math.ceil(num_bytes * self.bytes_per_byte / (0.9 * max(max_memory - _FIXED_BYTES, 1.0)))

    def require(self, output: str, num_bytes: int, num_all_bytes: int, max_memory_gb: float) -> None:
        """ValueError where a shard of num_bytes needs more; says how many shards of all the text need less."""
        needed = self.of(num_bytes)
        if needed > max_memory_gb * 1e9:
            num_shards = self.num_shards(num_all_bytes, max_memory_gb * 1e9)
            raise ValueError(
                f"{output}: exact mode mixes all text of a shard, and {num_bytes / 1e9:.2f} GB of text need about "
                f"{needed / 1e9:.1f} GB of memory, more than --max_memory_gb {max_memory_gb:g}; --output_dir with "
                f"--num_shards={num_shards} needs less, or give --max_memory_gb={needed / 1e9 + 0.1:.1f}"
            )


def estimate(spans: Sequence[corpus.Span], tokenizer: LineTokenizer, config: ExampleConfig) -> MemoryNeed:
    """Reads about 1 MB of the text."""
    sample = list(_first_documents(spans))
    text = tokenize(sample, tokenizer)
    capacity = config.max_seq_length - NUM_SPECIAL_TOKENS
    num_examples = config.dupe_factor * (_EXAMPLES_PER_CHUNK * len(text.ids) / capacity + text.num_documents)
    num_bytes = (
        _BYTES_PER_TOKEN * len(text.ids)
        + _BYTES_PER_SENTENCE * (len(text.sentence_starts) - 1)
        + _BYTES_PER_DOCUMENT * text.num_documents
        + _BYTES_PER_EXAMPLE * num_examples
    )
    num_sampled = sum(len(line.encode()) + 1 for document in sample for line in document) + len(sample)
    return MemoryNeed(num_bytes / max(num_sampled, 1))


def _first_documents(spans: Sequence[corpus.Span]) -> Iterator[list[str]]:
    num_chars = 0
    for document in corpus.read_documents(spans):
        yield document
        num_chars += sum(map(len, document))
        if num_chars > _SAMPLE_BYTES:
            return
