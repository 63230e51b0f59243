"""Records into a shard, all or nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from bert_pretrain.data import tfrecord


def write_shard(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file and returns its number of records; it appears under its name only when complete."""
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")  # hidden: never a shard
    num_records = 0
    try:
        with open(partial, "wb", buffering=1 << 20) as file:
            for record in records:
                file.write(tfrecord.frame(record))
                num_records += 1
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
        raise
    return num_records
