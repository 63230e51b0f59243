"""Which flags may change between starts: every flag has a rule, and docs/training.md has the table.

python -m tests.run_files.test_run_json rewrites the table.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from bert_pretrain.config.option import OnResume, RefusedOnResume, options_of
from bert_pretrain.config.training import PARTS
from bert_pretrain.run_files import run_json
from tests.train.small import MODEL

PAGE = Path(__file__).parent.parent.parent / "docs" / "training.md"
BEGIN, END = "<!-- changed flags: made from the options -->", "<!-- end of changed flags -->"
FLAGS = {field.name: part for part, kind in PARTS.items() for field in dataclasses.fields(kind)}


def described(**flags: object) -> dict:
    """The content of a run.json."""
    settings = {part: {field.name: field.default for field in dataclasses.fields(kind)} for part, kind in PARTS.items()}
    for name, value in flags.items():
        settings[FLAGS[name]][name] = value
    return {
        "settings": settings,
        "model": dataclasses.asdict(MODEL),
        "data": {"train": {"fingerprint": "abc"}},
        "ranks": 1,
        "device": "cpu",
        "compute_dtype": "float32",
        "backend": "native",
        "versions": {"tensorflow": "2.15.1"},
    }


RULES = {field.name: facts.on_resume for field, facts in options_of(*PARTS.values())}
REFUSED = {name: rule for name, rule in RULES.items() if isinstance(rule, RefusedOnResume)}
HARMLESS = {name: rule for name, rule in RULES.items() if isinstance(rule, OnResume)}


def test_every_flag_has_a_rule() -> None:
    assert {name for name, rule in RULES.items() if rule is None} == set(), "give their option() an on_resume"


@pytest.mark.parametrize("name", REFUSED)
def test_a_change_that_contradicts_the_checkpoint_is_refused(name: str) -> None:
    before = "adam" if name == "optimizer_type" else 0.25
    with pytest.raises(ValueError) as error:
        run_json.notices_of_changes("/out", described(**{name: before}), described(), 10)
    assert REFUSED[name].reason in str(error.value) and f"give --{name}={before}" in str(error.value)


@pytest.mark.parametrize(
    "name", sorted(set(HARMLESS) - {"train_batch_size", "num_accumulation_steps", "rampup_batch_size"})
)
def test_a_harmless_change_is_one_line_with_both_values(name: str) -> None:
    now = described()["settings"][FLAGS[name]][name]
    (line,) = run_json.notices_of_changes("/out", described(**{name: "before"}), described(), 10)
    assert line == f"--{name} was before at the previous start and is {now} now: {HARMLESS[name].value}"


def test_another_ramp_of_the_batch_says_where_the_data_continue() -> None:
    older = described(num_accumulation_steps=2)
    del older["settings"]["data"]["rampup_batch_size"]  # of a version without it
    assert run_json.notices_of_changes("/out", older, described(num_accumulation_steps=2), 10) == []
    ramp = described(num_accumulation_steps=2, rampup_batch_size="32,16,160")  # 3 updates of 32, 2 of 48, then of 64
    (line,) = run_json.notices_of_changes("/out", older, ramp, 10)
    assert "example 512" in line and "32,16,160" in line, line
    (line,) = run_json.notices_of_changes("/out", ramp, described(num_accumulation_steps=2), 10)
    assert "example 640" in line, line


def test_betas_may_change_with_adam_which_corrects_no_bias() -> None:
    adam = described(optimizer_type="adam")
    (line,) = run_json.notices_of_changes("/out", described(optimizer_type="adam", beta_1=0.8), adam, 10)
    assert line.startswith("--beta_1 was 0.8 at the previous start and is 0.9 now")


def test_a_run_json_with_older_names_of_flags_is_the_same_run(tmp_path: Path) -> None:
    older = described()
    for name in ("beta_1", "beta_2", "weight_decay_rate"):
        older["settings"]["optim"][f"lamb_{name}"] = older["settings"]["optim"].pop(name)
    older["settings"]["mlperf"]["mlperf_submitter"] = "a flag that is gone"
    (tmp_path / "run.json").write_text(json.dumps(older))
    assert run_json.notices_of_changes("/out", run_json.read_run_json(str(tmp_path)), described(), 10) == []


@pytest.mark.parametrize("key", ["num_attention_heads", "vocab_size", "hidden_dropout_prob", "initializer_range"])
def test_of_the_model_only_dropout_and_the_initializer_may_change(key: str) -> None:
    previous = described()
    previous["model"][key] = 7
    if key in ("hidden_dropout_prob", "initializer_range"):
        (line,) = run_json.notices_of_changes("/out", previous, described(), 10)
        assert line.startswith(f"model {key} was 7 at the previous start")
    else:
        with pytest.raises(ValueError, match=f"holds a run with model {key} 7, this one has"):
            run_json.check_same_model("/out", previous, described())


def test_other_data_are_refused_and_other_versions_told() -> None:
    other = copy.deepcopy(described())
    other["data"]["train"]["fingerprint"] = "xyz"
    with pytest.raises(ValueError, match="holds a run with train data abc, this one has xyz"):
        run_json.notices_of_changes("/out", described(), other, 10)
    newer = copy.deepcopy(described())
    newer["versions"]["tensorflow"], newer["compute_dtype"] = "2.21.0", "float16"
    dtype, version = run_json.notices_of_changes("/out", described(), newer, 10)
    assert dtype.startswith("compute_dtype was float32 at the previous start and is float16 now")
    assert version.startswith("version of tensorflow was 2.15.1 at the previous start and is 2.21.0 now")


def test_the_history_says_what_changed_when_and_at_which_update() -> None:
    first = run_json.with_history(described(), None, begin=100.0, step=0)
    second = run_json.with_history(described(learning_rate=0.5), first, begin=200.0, step=40)
    del second["data"]["train"]  # the third start is one of an older version, in another order of keys
    third = run_json.with_history(described(learning_rate=0.5), second, begin=300.0, step=60)
    assert [(start["time"], start["update"]) for start in third["starts"]] == [(100.0, 0), (200.0, 40), (300.0, 60)]
    assert [start["changed"] for start in third["starts"]] == [{}, {"--learning_rate": [5e-5, 0.5]}, {}]
    assert third["settings"]["optim"]["learning_rate"] == 0.5


def table() -> str:
    lines = ["| flags | a change |", "|---|---|"]
    for name, rule in REFUSED.items():
        lines.append(f"| `--{name}` | **refused**: {rule.reason} |")
    for effect in OnResume:
        names = [f"`--{name}`" for name, rule in HARMLESS.items() if rule is effect]
        lines.append(f"| {', '.join(names)} | {effect.value} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m tests.run_files.test_run_json"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
