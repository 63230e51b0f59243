"""Shards in a remote storage, read by ranges: the blocks of order.py ahead of their use, and what else is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.data import offsets, remote_scan
from bert_pretrain.data.order import BLOCK, POOL
from bert_pretrain.storage import remote
from bert_pretrain.storage.read_ahead import ReadAhead
from bert_pretrain.storage.remote import RemoteFile


class Run(NamedTuple):
    """Records first:last of a shard, by number."""

    shard: int
    first: int
    last: int


class RemoteShards:
    """The remote shards of a data set. The blocks of two pools are kept in memory: the present one and the next."""

    def __init__(self, files: Sequence[Optional[RemoteFile]], tables: Sequence[np.ndarray]) -> None:
        """files [shards]: None for a local shard; tables [shards]: the offsets of its records."""
        self._files, self._tables = files, tables
        self._read_ahead: ReadAhead[Run] = ReadAhead(self._fetch, capacity=2 * POOL)

    def will_need(self, runs: Iterable[Run]) -> None:
        """Fetches runs in the background; each lies within a block."""
        self._read_ahead.request(dict.fromkeys(self._block(run.shard, run.first // BLOCK) for run in runs))

    def read(self, runs: Sequence[Run]) -> dict[Run, bytes]:
        """The bytes of runs: out of blocks that are kept or on their way, else exactly these, many at a time.

        ValueError, naming URL and byte, where that cannot be read, is damaged, or the shard was replaced.
        """
        pieces = {run: self._pieces(run) for run in runs}
        wanted = list(dict.fromkeys(piece for found in pieces.values() for piece in found))
        try:
            contents = dict(zip(wanted, self._read_ahead.get(wanted)))
        except OSError as error:
            raise self._fault(wanted, error) from None
        return {run: self._join(run, found, contents) for run, found in pieces.items()}

    def _block(self, shard: int, number: int) -> Run:
        num_records = len(self._tables[shard]) - 1
        return Run(shard, number * BLOCK, min((number + 1) * BLOCK, num_records))

    def _pieces(self, run: Run) -> list[Run]:
        """What is fetched for a run."""
        blocks = [self._block(run.shard, number) for number in range(run.first // BLOCK, (run.last - 1) // BLOCK + 1)]
        return blocks if all(map(self._read_ahead.holds, blocks)) else [run]

    def _span(self, run: Run) -> tuple[int, int]:
        table = self._tables[run.shard]
        return table.item(run.first), table.item(run.last)

    def _join(self, run: Run, pieces: Sequence[Run], contents: dict[Run, bytes]) -> bytes:
        if list(pieces) == [run]:
            return contents[run]
        (begin, end), start = self._span(run), self._span(pieces[0])[0]
        if len(pieces) == 1:
            return contents[pieces[0]][begin - start : end - start]
        return b"".join(contents[piece] for piece in pieces)[begin - start : end - start]

    def _fetch(self, run: Run) -> bytes:
        """A piece whose records all have the CRCs that their frames state. OSError, naming URL and byte, otherwise."""
        begin, end = self._span(run)
        url, num_records = self._files[run.shard].url, run.last - run.first

        def problem(content: bytes) -> Optional[str]:
            starts, _, wrong = remote_scan.parse(content, begin)
            is_other = wrong is None and len(starts) != num_records
            return f"other records than when it was indexed; {offsets.COPY_AGAIN}" if is_other else wrong

        try:
            return remote.read_range(url, begin, end, problem)
        except OSError as error:
            raise OSError(error.errno, f"{url}:{begin}: cannot be read ({error.strerror})", url) from None

    def _fault(self, wanted: Sequence[Run], error: OSError) -> ValueError:
        """The error for a piece that cannot be read; a replaced shard is not damaged."""
        file = next(file for piece in wanted if (file := self._files[piece.shard]).url == error.filename)
        try:
            is_replaced = remote.describe(file.url, is_fresh=True) != file
        except OSError:
            is_replaced = False
        if is_replaced:
            return ValueError(f"{file.url}: the file was replaced since it was indexed; start again")
        return ValueError(error.strerror)
