import pytest

from bert_pretrain.data import manifest
from bert_pretrain.data.manifest import Manifest
from bert_pretrain.data.shards import ShardIndex
from bert_pretrain.data.tfrecord import write_shard


@pytest.fixture
def checked(tmp_path):
    """A directory of two shards with its manifest, and a way to look at it again."""
    for name in ("a", "b"):
        write_shard(str(tmp_path / name), [b"one", b"two", b"three"])
    index = ShardIndex([str(tmp_path / name) for name in ("a", "b")])
    manifest.write(str(tmp_path), Manifest(6, 128, 20, 99, index.fingerprint, {"a": 3, "b": 3}))

    def enforce(names="ab", lengths=(128, 20)):
        manifest.enforce(str(tmp_path), ShardIndex([str(tmp_path / name) for name in names]).files, *lengths)

    return tmp_path, enforce


def test_unchanged_data_passes(checked):
    folder, enforce = checked
    enforce()
    assert manifest.read(str(folder)).num_records == 6


def test_data_without_a_manifest_passes(checked):
    folder, enforce = checked
    (folder / "manifest.json").unlink()
    enforce(lengths=(1, 1))


def test_changes_are_named(checked):
    folder, enforce = checked
    with pytest.raises(ValueError, match="b is missing"):
        enforce("a")
    write_shard(str(folder / "c"), [b"one"])
    with pytest.raises(ValueError, match="c is new"):
        enforce("abc")
    with pytest.raises(ValueError, match="records of 128 tokens and 20 predictions, now 512 and 76"):
        enforce(lengths=(512, 76))
    write_shard(str(folder / "b"), [b"one", b"two", b"thirty"])
    with pytest.raises(ValueError, match="a shard has another size"):
        enforce()
    write_shard(str(folder / "b"), [b"one"])
    with pytest.raises(ValueError, match="b has 1 records instead of 3"):
        enforce()


def test_what_is_no_manifest_is_refused(checked):
    folder, enforce = checked
    (folder / "manifest.json").write_text('{"num_records": 3}')
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
        enforce()
