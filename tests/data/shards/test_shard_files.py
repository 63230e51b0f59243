""""""

import gzip
import os
import socket

import pytest

from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.shards.shard_files import Manifest, ShardFile, find_shards, in_directory
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.data.shards.tfrecord import write_shard


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def write(directory, records_per_shard):
    paths = [str(directory / f"part-{shard}") for shard in range(len(records_per_shard))]
    for path, num_records in zip(paths, records_per_shard):
        write_shard(path, [b"record"] * num_records)
    return paths


def test_shards_are_found_by_name_without_hidden_and_side_files(directory):
    paths = write(directory, [1, 2, 3])
    (directory / ".part-0.swp").write_text("hidden")
    (directory / "manifest.json").write_text("{}")
    (directory / "cache.npz").write_text("ours")
    (directory / "folder").mkdir()
    assert find_shards([str(directory)]) == paths


def test_directories_keep_their_order(directory, tmp_path):
    other = tmp_path / "another"
    other.mkdir()
    paths = write(directory, [1]), write(other, [1])
    assert find_shards([str(directory), str(other)]) == paths[0] + paths[1]
    assert find_shards([str(other), str(directory)]) == paths[1] + paths[0]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"^{tmp_path}/nowhere: no such directory; "):
        find_shards([str(tmp_path / "nowhere")])


def test_a_file_in_place_of_a_directory_is_named(directory):
    (path,) = write(directory, [1])
    with pytest.raises(ValueError, match=rf"^{path}: Not a directory"):
        find_shards([path])


def test_a_directory_without_shards_is_named(directory):
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"^{directory}: no TFRecord files in this directory; "):
        find_shards([str(directory)])


def test_no_directory_at_all():
    with pytest.raises(ValueError, match="no data directory given"):
        find_shards([])


def test_the_same_directory_twice_is_refused(directory):
    write(directory, [1])
    (directory.parent / "link").symlink_to(directory)
    with pytest.raises(ValueError, match="the same shards twice"):
        find_shards([str(directory), str(directory.parent / "link")])


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda path: path.write_text("Some notes about the data."), "not a TFRecord file"),
        (lambda path: path.write_text("short"), "not a TFRecord file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(gzip.compress(b"records")), "compressed with gzip, "),
        (lambda path: path.symlink_to("/nowhere/at/all"), "unreadable (No such file or directory)"),
        (os.mkfifo, "unreadable (not a regular file)"),
        (lambda path: path.symlink_to("/dev/zero"), "unreadable (not a regular file)"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "unreadable (No such device or address)"),
    ],
)
def test_a_stray_file_is_named_or_left_out_on_request(directory, capfd, make, why):
    paths = write(directory, [1])
    make(directory / "stray")
    with pytest.raises(ValueError) as raised:
        find_shards([str(directory)])
    assert str(raised.value).startswith(f"{directory}/stray: {why}")
    assert "--skip_unreadable" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert find_shards([str(directory)], skip_unreadable=True) == paths
    assert capfd.readouterr().err.startswith(f"--skip_unreadable: left out {directory}/stray: {why}")
    assert find_shards([str(directory)], skip_unreadable=True, is_root=False) == paths
    assert capfd.readouterr().err == ""


def test_several_stray_files_are_counted(directory):
    for name in "abc":
        (directory / name).write_text("no shard at all")
    with pytest.raises(ValueError, match=rf"^{directory}/a: not a TFRecord file, and 2 other files"):
        find_shards([str(directory)])


@pytest.mark.parametrize("name", ["data", "data/", "data//", "./data"])
def test_the_shards_of_a_directory_are_told_from_those_of_others(tmp_path, directory, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    write(directory, [1, 2])
    write(tmp_path / "other", [3])
    files = [ShardFile(path, 0, 0) for path in find_shards([name, "other"])]
    assert in_directory(files, name) == files[:2]
    assert in_directory(files, "other") == files[2:]


@pytest.fixture
def checked(tmp_path):
    """A directory of two shards with its manifest, and a way to look at it again."""
    for name in ("a", "b"):
        write_shard(str(tmp_path / name), [b"one", b"two", b"three"])
    index = ShardIndex([str(tmp_path / name) for name in ("a", "b")])
    shard_files.write_manifest(str(tmp_path), Manifest(6, 128, 20, 99, index.fingerprint, {"a": 3, "b": 3}))

    def enforce(names="ab", lengths=(128, 20)):
        shard_files.enforce_manifest(
            str(tmp_path), ShardIndex([str(tmp_path / name) for name in names]).files, *lengths
        )

    return tmp_path, enforce


def test_unchanged_data_passes(checked):
    folder, enforce = checked
    enforce()
    assert shard_files.read_manifest(str(folder)).num_records == 6


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
    with pytest.raises(ValueError, match=r"128 .* 20 .* 512 .* 76"):
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
