"""Invalid input in one process: one line that says what, where and the remedy; exit code 2; nothing lost."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Callable, Dict

import numpy as np
import pytest

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data import vocab
from bert_pretrain.data.schema import encode_examples
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.launch import hosts
from bert_pretrain.make_data import corpus
from tests import small_disk
from tests.e2e import runs
from tests.train.small import MODEL, random_examples, write_shards

Settings = Dict[str, object]


@pytest.fixture
def data(tmp_path: Path) -> Settings:
    return runs.make_data(tmp_path / "data")


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def change_records(directory: str, **columns: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces the first shard's records by ones whose columns are changed."""
    examples = random_examples(np.random.default_rng(5), 40)
    changed = examples._replace(**{name: change(getattr(examples, name)) for name, change in columns.items()})
    write_shard(f"{directory}/part-00000.tfrecord", encode_examples(changed))


def no_directory(data: Settings, tmp_path: Path) -> Settings:
    return {"input_files_dir": str(tmp_path / "nowhere")}


def empty_directory(data: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "empty").mkdir()
    return {"input_files_dir": str(tmp_path / "empty")}


def stray_file(data: Settings, tmp_path: Path) -> Settings:
    Path(data["input_files_dir"], "readme.txt").write_text("these are the shards of last week")
    return {}


def truncated_shard(data: Settings, tmp_path: Path) -> Settings:
    path = Path(data["input_files_dir"], "part-00001.tfrecord")
    os.truncate(path, path.stat().st_size - 7)
    return {}


def corrupt_record(data: Settings, tmp_path: Path) -> Settings:
    for number in range(3):
        damage(Path(data["input_files_dir"], f"part-0000{number}.tfrecord"), 40)
    return {}


def wrong_length_flag(data: Settings, tmp_path: Path) -> Settings:
    return {"max_seq_length": 128}


def mixed_lengths(data: Settings, tmp_path: Path) -> Settings:
    examples = random_examples(np.random.default_rng(5), 4, seq_length=32)
    write_shard(f"{data['input_files_dir']}/part-00009.tfrecord", encode_examples(examples))
    return {}


def longer_than_the_model(data: Settings, tmp_path: Path) -> Settings:
    model = dataclasses.replace(MODEL, max_position_embeddings=32)
    return {"bert_config_file": runs.write_model(tmp_path / "short.json", model)}


def token_beyond_the_vocabulary(data: Settings, tmp_path: Path) -> Settings:
    model = dataclasses.replace(MODEL, vocab_size=50)
    return {"bert_config_file": runs.write_model(tmp_path / "small.json", model)}


def position_beyond_the_sequence(data: Settings, tmp_path: Path) -> Settings:
    change_records(data["input_files_dir"], masked_lm_positions=lambda p: np.full_like(p, 64))
    return {}


def unknown_config_key(data: Settings, tmp_path: Path) -> Settings:
    path = tmp_path / "typo.json"
    path.write_text(json.dumps({**dataclasses.asdict(MODEL), "hiden_size": 3}))
    return {"bert_config_file": str(path)}


def no_such_checkpoint(data: Settings, tmp_path: Path) -> Settings:
    return {"init_checkpoint": str(tmp_path / "model.ckpt-28252")}


def checkpoint_without_data(data: Settings, tmp_path: Path) -> Settings:
    runs.train(**data, **{**runs.settings(output_dir=str(tmp_path / "made")), "num_train_steps": 1})
    os.remove(tmp_path / "made" / "model.ckpt-1.data-00000-of-00001")
    return {"init_checkpoint": str(tmp_path / "made" / "model.ckpt-1")}


def checkpoint_of_another_vocabulary(data: Settings, tmp_path: Path) -> Settings:
    runs.train(**data, **{**runs.settings(output_dir=str(tmp_path / "made")), "num_train_steps": 1})
    model = dataclasses.replace(MODEL, vocab_size=120)
    return {
        "init_checkpoint": str(tmp_path / "made" / "model.ckpt-1"),
        "bert_config_file": runs.write_model(tmp_path / "larger.json", model),
    }


def output_dir_of_another_model(data: Settings, tmp_path: Path) -> Settings:
    runs.train(**data, **{**runs.settings(output_dir=str(tmp_path / "made")), "num_train_steps": 1})
    model = dataclasses.replace(MODEL, intermediate_size=32)
    return {
        "output_dir": str(tmp_path / "made"),
        "bert_config_file": runs.write_model(tmp_path / "other.json", model),
    }


def output_dir_of_other_data(data: Settings, tmp_path: Path) -> Settings:
    runs.train(**data, **{**runs.settings(output_dir=str(tmp_path / "made")), "num_train_steps": 1})
    return {
        "output_dir": str(tmp_path / "made"),
        "input_files_dir": write_shards(tmp_path / "others", 9, [17]),
    }


def output_dir_is_a_file(data: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "file").write_text("")
    return {"output_dir": str(tmp_path / "file")}


def horovod_without_a_launcher(data: Settings, tmp_path: Path) -> Settings:
    return {"horovod": True}


def gradient_not_finite(data: Settings, tmp_path: Path) -> Settings:
    return {"learning_rate": 1e30, "optimizer_type": "adam", "num_warmup_steps": 0}


def nothing_to_predict(data: Settings, tmp_path: Path) -> Settings:
    examples = random_examples(np.random.default_rng(5), 40)
    (tmp_path / "unmasked").mkdir()
    unmasked = examples._replace(masked_lm_weights=np.zeros_like(examples.masked_lm_weights))
    write_shard(f"{tmp_path}/unmasked/part", encode_examples(unmasked))
    return {"input_files_dir": f"{tmp_path}/unmasked"}


def nothing_to_predict_in_evaluation(data: Settings, tmp_path: Path) -> Settings:
    return {"eval_files_dir": nothing_to_predict(data, tmp_path)["input_files_dir"], "do_eval": True}


def one_segment(data: Settings, tmp_path: Path) -> Settings:
    examples = random_examples(np.random.default_rng(5), 40)
    (tmp_path / "segments").mkdir()
    alone = examples._replace(segment_ids=np.zeros_like(examples.segment_ids))
    write_shard(f"{tmp_path}/segments/part", encode_examples(alone))
    return {"input_files_dir": f"{tmp_path}/segments"}


CASES = {
    nothing_to_predict: ["--input_files_dir:", "none of the 40 records has a token to predict", "--allow_bad_data"],
    nothing_to_predict_in_evaluation: ["--eval_files_dir:", "none of the 40 records has a token to predict"],
    one_segment: ["--input_files_dir:", "the segment ids of all 40 records are 0", "--allow_bad_data"],
    no_directory: ["--input_files_dir", "nowhere: no such directory"],
    empty_directory: ["--input_files_dir", "no TFRecord files in this directory"],
    stray_file: ["readme.txt: not a TFRecord file", "--skip_unreadable"],
    truncated_shard: ["part-00001.tfrecord:"],
    corrupt_record: ["tfrecord:0: the record at this byte is damaged"],
    wrong_length_flag: ["--max_seq_length is 128", "have 64"],
    mixed_lengths: ["part-00009.tfrecord:0: records here have 32 tokens"],
    longer_than_the_model: ["64 tokens", "max_position_embeddings 32"],
    token_beyond_the_vocabulary: ["input_ids", "it must be in [0, 50)"],
    position_beyond_the_sequence: ["masked_lm_positions", "part-00000.tfrecord:"],
    unknown_config_key: ["typo.json: unknown keys hiden_size"],
    no_such_checkpoint: ["--init_checkpoint:", "model.ckpt-28252.index does not exist"],
    checkpoint_without_data: ["model.ckpt-1.index is there but its .data files are not"],
    checkpoint_of_another_vocabulary: [
        "44 of 46 variables matched, 2 of another shape",
        "bert/embeddings/word_embeddings: checkpoint [97, 32], model [120, 32]",
    ],
    output_dir_of_another_model: ["--output_dir:", "holds another model"],
    output_dir_of_other_data: ["--output_dir:", "holds a run with train data"],
    output_dir_is_a_file: ["--output_dir:", "cannot be written"],
    horovod_without_a_launcher: ["--horovod: "],
    gradient_not_finite: ["the gradient is not finite", "part-0000"],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_line_and_the_cause(case: Callable, data: Settings, tmp_path: Path) -> None:
    values = {**data, **runs.settings(output_dir=str(tmp_path / "out")), **case(data, tmp_path)}
    with pytest.raises(ValueError) as error:
        runs.train(**values)
    message = str(error.value)
    assert "\n" not in message
    for part in CASES[case]:
        assert part in message


def test_what_teaches_nothing_is_trained_on_where_that_is_asked_for(
    data: Settings, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    values = {**data, **runs.settings(output_dir=str(tmp_path / "out")), **nothing_to_predict(data, tmp_path)}
    assert runs.train(**{**values, "num_train_steps": 1}, allow_bad_data=True)["updates"] == 1
    assert "fault: --input_files_dir: none of the 40 records has a token to predict" in capsys.readouterr().err


def test_the_room_for_checkpoints_is_looked_at_before_training(
    data: Settings, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with small_disk.mounted(tmp_path / "disk", kilobytes=2000) as disk:
        values = {**data, **runs.settings(output_dir=str(disk / "out"), num_train_steps=20, save_checkpoints_steps=1)}
        runs.train(**{**values, "num_train_steps": 1})
        assert "checkpoints of" not in capsys.readouterr().err
        with pytest.raises(ValueError, match="cannot be written"):
            runs.train(**values, keep_checkpoint_max=0)
    assert f"warning: --output_dir: {disk}/out has " in capsys.readouterr().err


def test_a_person_sees_one_line_and_exit_code_2(data: Settings, tmp_path: Path) -> None:
    values = {**data, **runs.settings(output_dir=str(tmp_path / "out")), **corrupt_record(data, tmp_path)}
    done = runs.start(runs.flags(**values))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    told_more = runs.start([*runs.flags(**values), "--verbose_logging"])
    assert told_more.returncode == 2 and "Traceback" in told_more.stderr


def test_stray_files_can_be_left_out_by_name(data: Settings, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stray_file(data, tmp_path)
    values = {**runs.settings(output_dir=str(tmp_path / "out")), "num_train_steps": 1}
    assert runs.train(**data, **values, skip_unreadable=True)["updates"] == 1
    assert "left out" in capsys.readouterr().err


def test_a_full_disk_keeps_the_last_checkpoint(data: Settings, tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    runs.train(**data, **{**runs.settings(output_dir=str(output_dir)), "num_train_steps": 5})
    kept = runs.tensors(output_dir / "model.ckpt-5")
    # A directory where the next checkpoint's file must go refuses it as a full disk would.
    (output_dir / "model.ckpt-10.index").mkdir()
    with pytest.raises(ValueError, match=r"model\.ckpt-10 cannot be written"):
        runs.train(**data, **runs.settings(output_dir=str(output_dir)), max_failed_checkpoints=1)
    shutil.rmtree(output_dir / "model.ckpt-10.index")
    for name, value in runs.tensors(output_dir / "model.ckpt-5").items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize(
    "name, read",
    [
        ("vocab.txt", vocab.load_vocabulary),
        ("bert_config.json", ModelConfig.from_json),
        ("text.txt", corpus.whole_file),
        ("hosts", lambda path: hosts.read_hostfile(path, 1)),
        ("part-00000", lambda path: find_shards([os.path.dirname(path)])),
        ("manifest.json", lambda path: shard_files.read_manifest(os.path.dirname(path))),
    ],
)
def test_a_fifo_is_refused_at_once(name: str, read: Callable[[str], object], tmp_path: Path) -> None:
    """open() would wait for a writer without end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"not a regular file|not a manifest") as raised:
        read(str(tmp_path / name))
    assert "\n" not in str(raised.value)
