import os

import numpy as np
import pytest

from bert_pretrain.data.shards import offsets, tfrecord
from bert_pretrain.data.shards.tfrecord import write_shard


@pytest.fixture
def shard(tmp_path):
    path = str(tmp_path / "shard")
    write_shard(path, [b"first", b"", b"third record"])
    return path


def test_offsets_of_records_and_the_end(shard):
    found = offsets.scan_offsets(shard)
    assert found.tolist() == [0, 21, 37, 65]
    assert found.dtype == np.int64
    assert tfrecord.FRAME_SIZE == 16


def test_records_longer_than_a_chunk_are_walked_over(tmp_path, monkeypatch):
    monkeypatch.setattr(offsets, "_CHUNK_BYTES", 20)
    path, reports = str(tmp_path / "shard"), []
    write_shard(path, [b"x" * length for length in (100, 3, 0, 19, 20, 1)])
    assert offsets.scan_offsets(path, reports.append).tolist() == [0, 116, 135, 151, 186, 222, 239]
    assert reports == [116, 135, 151, 186, 222, 239]


@pytest.mark.parametrize("size, begins", [(64, 37), (38, 37), (48, 37), (22, 21), (5, 0)])
def test_a_shard_that_is_cut_short_is_named_with_the_byte(shard, size, begins):
    os.truncate(shard, size)
    with pytest.raises(ValueError) as raised:
        offsets.scan_offsets(shard)
    assert str(raised.value) == (
        f"{shard}:{begins}: the record at this byte is cut short, the file ends at byte {size}; "
        f"copy the file again from its source, or remove it"
    )


@pytest.mark.parametrize("place", [37, 41, 48])
def test_a_damaged_header_is_named_with_the_byte(shard, place):
    with open(shard, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ValueError, match=rf"^{shard}:37: the header"):
        offsets.scan_offsets(shard)
