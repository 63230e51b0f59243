"""Leaves out records that equal an earlier one.

Ten passes cut and mask a short document in the same way now and then: of two sentences of six tokens, two tokens are
masked, and there are 66 pairs of them. Of 60 tokens, nine are masked, and there are 10**10 choices. Records with more
than 10**18 choices are not compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from crc32c import crc32c

from bert_pretrain.data.masking import Masking
from bert_pretrain.make_data.instances import Instances

_MANY_TOKENS = 32  # C(64, 32) = 1.8 * 10**18 choices


class RepeatedRecords:
    """Recognizes records of a block of text by two different CRCs of 32 bits, in about 70 bytes a record."""

    def __init__(self) -> None:
        self.num_kept = self.num_left_out = 0
        self._seen: set[int] = set()

    def begin_block(self) -> None:
        """Forgets the records so far: those of other documents are others."""
        self._seen.clear()

    def without_repeats(self, records: Iterable[bytes], may_repeat: Iterable[bool]) -> Iterator[bytes]:
        """The records that did not occur in this block before, and those that cannot repeat."""
        seen = self._seen
        for record, is_compared in zip(records, may_repeat):
            key = crc32c(record) << 32 | zlib.crc32(record) if is_compared else None
            if key in seen:
                self.num_left_out += 1
                continue
            if is_compared:
                seen.add(key)
            self.num_kept += 1
            yield record


def may_repeat(instances: Instances, masking: Masking) -> list[bool]:
    """Whether each of E examples has so few choices of masks that another pass may have made the same."""
    num_others = instances.num_tokens - masking.num_masked
    return (np.minimum(masking.num_masked, num_others) < _MANY_TOKENS).tolist()
