import os

import numpy as np
import pytest

from bert_pretrain.data import offsets, tfrecord
from bert_pretrain.data.tfrecord import write_shard

RECORDS = [b"first", b"", b"third record"]
TABLE = [0, 21, 37, 65]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


@pytest.fixture
def shard(tmp_path):
    path = str(tmp_path / "shard")
    write_shard(path, RECORDS)
    return path


def damage(path, place):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_offsets_of_records_and_the_end(shard):
    assert offsets.scan(shard).tolist() == TABLE


def test_records_longer_than_a_chunk_are_walked_over(tmp_path, monkeypatch):
    monkeypatch.setattr(offsets, "_CHUNK_BYTES", 20)
    path = str(tmp_path / "shard")
    write_shard(path, [b"x" * length for length in (100, 3, 0, 19, 20, 1)])
    assert offsets.scan(path).tolist() == [0, 116, 135, 151, 186, 222, 239]


def test_the_table_is_kept_and_used_again(shard, cache, monkeypatch):
    assert offsets.load(shard).tolist() == TABLE
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(offsets, "scan", lambda path: pytest.fail("the shard was read again"))
    assert offsets.load(shard).tolist() == TABLE


def test_a_shard_that_changed_is_read_again(shard):
    offsets.load(shard)
    write_shard(shard, [b"another"])
    assert offsets.load(shard).tolist() == [0, 23]


def test_a_shard_of_the_same_size_but_another_time_is_read_again(shard):
    offsets.load(shard)
    write_shard(shard, [b"12", b"345", b"third record"])
    os.utime(shard, ns=(1, 1))
    assert offsets.load(shard).tolist() == [0, 18, 37, 65]


@pytest.mark.parametrize("spoil", [lambda table: b"", lambda table: table[:-3], lambda table: table[:-8]])
def test_a_damaged_table_is_made_again(shard, cache, spoil):
    offsets.load(shard)
    (path,) = cache.iterdir()
    sound = path.read_bytes()
    path.write_bytes(spoil(sound))
    assert offsets.load(shard).tolist() == TABLE
    assert path.read_bytes() == sound


def test_a_flipped_bit_in_the_table_is_noticed(shard, cache):
    offsets.load(shard)
    (path,) = cache.iterdir()
    damage(path, 41)
    assert offsets.load(shard).tolist() == TABLE


def test_where_no_table_can_be_written_reading_does_without(shard, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "file"))
    assert offsets.load(shard).tolist() == TABLE


@pytest.mark.parametrize("size, begins", [(64, 37), (38, 37), (48, 37), (22, 21), (5, 0)])
def test_a_shard_that_is_cut_short_is_named_with_the_byte(shard, size, begins):
    os.truncate(shard, size)
    with pytest.raises(ValueError) as raised:
        offsets.load(shard)
    assert str(raised.value) == (
        f"{shard}:{begins}: the record at this byte is cut short, the file ends at byte {size}; "
        f"copy the file again from its source, or remove it"
    )


@pytest.mark.parametrize("place", [37, 41, 48])
def test_a_damaged_header_is_named_with_the_byte(shard, place):
    damage(shard, place)
    with pytest.raises(ValueError, match=rf"^{shard}:37: the header at this byte is damaged; copy the file again"):
        offsets.load(shard)


def test_offsets_are_integers_of_eight_bytes(shard):
    for _ in range(2):
        assert offsets.load(shard).dtype == np.int64
    assert tfrecord.FRAME_SIZE == 16
