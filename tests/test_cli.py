"""Flags made from dataclasses, in a process of their own, as a user runs them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain import cli
from bert_pretrain.config import make_data
from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.config.export import ExportConfig
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.option import FLAG_ORIGINS, facts_of, local_paths, options_of
from bert_pretrain.config.retired_flags import RETIRED_FLAGS
from bert_pretrain.config.training import PARTS
from bert_pretrain.optim.settings import OptimConfig

SCRIPT = '''
import dataclasses
from typing import Optional
from bert_pretrain import cli
from bert_pretrain.config.option import option

@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes."""

    size: int = option(3, "How many.")
    rate: float = option(0.5, "How fast.")
    name: Optional[str] = option(None, "Which.", required=True)
    old: int = option(1, "Nothing.", no_effect=True)
    limit: Optional[int] = option(None, "How far.")
    deep: bool = option(True, "Whether.")
    kind: str = option("lamb", "What kind.", ("lamb", "adam"))
    files: Optional[str] = option(None, "Which files.", is_path=True, is_list=True)

def main():
    settings = cli.read_settings(Settings)
    if settings.size > 100:
        raise {101: OSError(24, "Too many open files"), 102: MemoryError(), 103: KeyError(3)}[settings.size]
    if settings.size < 0:
        raise ValueError("--size must be positive")
    print(settings, sorted(cli.explicit_flags(Settings)))
    return 0

cli.define_flags(Settings)
cli.run_command(main, "What it does.")
'''


def start(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    command, variables = [sys.executable, "-c", SCRIPT, *arguments], {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def test_defaults_types_and_given() -> None:
    assert (
        start().stdout
        == "Settings(size=3, rate=0.5, name=None, old=1, limit=None, deep=True, kind='lamb', files=None) []\n"
    )
    done = start("--size=4", "--rate=2", "--name=x", "--limit=7", "--nodeep", "--kind=ADAM")
    assert done.stdout == (
        "Settings(size=4, rate=2.0, name='x', old=1, limit=7, deep=False, kind='adam', files=None) "
        "['deep', 'kind', 'limit', 'name', 'rate', 'size']\n"
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sise=4", "--sise is no flag of this command; perhaps --size is meant"),
        ("--xyzzy", "--xyzzy is no flag of this command; --help"),
        ("--size=four", "flag --size=four"),
        ("--kind=sgd", "value should be one of <lamb|adam>"),
        ("--size=-1", "--size must be positive"),
        ("--files=a,~nobody-here/b", "--files: ~nobody-here/b: no such user; for a file of that name write ./~nobody"),
        ("--files=a,s3://b/c", "--files: s3://b/c is a URL; it must be a local path"),
        ("--files=file://b/c", "--files: file://b/c: not a local file; write file:///PATH with three slashes"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(argument: str, message: str) -> None:
    done = start(argument)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("size", "limit"), [(101, "ulimit -n"), (102, "memory is limited")])
def test_a_limit_of_the_machine_is_one_line_and_exit_code_1(size: int, limit: str) -> None:
    done = start(f"--size={size}")
    assert done.returncode == 1
    assert limit in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" in start("--size=103").stderr


def test_the_home_directory_is_expanded_in_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert "files='/home/me/a,b~c,/home/me'" in start("--files=~/a, b~c, ~").stdout
    assert "name='~/x'" in start("--name=~/x").stdout


def test_a_url_is_taken_where_an_option_says_so() -> None:
    assert local_paths("files", "file:///a/b, FILE:///c") == "/a/b,/c"
    assert local_paths("files", "s3://b/c,~", takes_url=True).startswith("s3://b/c,/")


def test_every_flag_that_names_a_file_is_a_path() -> None:
    for part in (*PARTS.values(), MakeDataConfig, ExampleConfig, TextConfig, CheckDataConfig, EstimateConfig):
        for field in dataclasses.fields(part):
            names_a_file = field.name.endswith(("_dir", "_file", "_path", "_checkpoint"))
            assert facts_of(field).is_path or not names_a_file, field.name


def test_help_lists_the_flags_in_groups() -> None:
    done = start("--help")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:4] == ["What it does.", "", "Sizes:", "  --name=STR"], "required flags come first"
    assert "      Which. Required." in lines and "      What kind. Default: lamb." in lines
    assert "  --[no]deep" in lines and "  --kind=lamb|adam" in lines
    assert lines.index("  --old=INT") > lines.index("Accepted for compatibility, without effect here:")


def test_flagfiles_may_hold_comments(tmp_path) -> None:
    path = tmp_path / "recipe.flags"
    path.write_text("# a recipe\n--size=9\n--nodeep\n")
    assert "size=9" in start(f"--flagfile={path}").stdout


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x1b[1m", "a\u2028b"])
def test_a_control_character_in_a_value_is_refused_in_one_line(value: str) -> None:
    done = start(f"--name={value}")
    assert done.returncode == 2
    message = f"error: --name holds the control character {value.lstrip('ab')[0]!r}; give it without line breaks\n"
    assert done.stderr == message


def test_an_old_name_of_a_flag_is_still_taken(tmp_path: Path) -> None:
    path = tmp_path / "recipe.flags"
    path.write_text("--lamb_beta_1=0.5\n--beta_2=0.75\n")
    (optim,) = cli.read_flagfile(str(path), [OptimConfig])
    assert (optim.beta_1, optim.beta_2) == (0.5, 0.75)
    (optim,) = cli.read_arguments(["--lamb_weight_decay_rate=0.25"], [OptimConfig])
    assert optim.weight_decay_rate == 0.25


def test_a_flag_of_a_replaced_program_is_told_what_takes_its_place(tmp_path: Path) -> None:
    for argument in ("--use_tpu=False", "--nouse_tpu", "--use_tpu"):
        done = start(argument)
        assert done.returncode == 2 and done.stderr.startswith("error: --use_tpu is no flag of this command: ")
        assert done.stderr.count("\n") == 1 and "cprofile" not in done.stderr
    path = tmp_path / "old.flags"
    path.write_text("--steps_per_update=4\n")
    assert "--num_accumulation_steps" in start(f"--flagfile={path}").stderr
    with pytest.raises(ValueError, match=r"--steps_per_update .*--num_accumulation_steps"):
        cli.read_flagfile(str(path), [OptimConfig])
    assert "of bert_pretrain.run" in start("--train_batch_size=3").stderr


def test_retired_flags_are_none_of_ours_and_name_flags_that_exist() -> None:
    own = {field.name for field, _ in options_of(*PARTS.values())}
    others = {field.name for field, _ in options_of(*make_data.PARTS, CheckDataConfig, ExportConfig)}
    assert not own & set(RETIRED_FLAGS)
    for name, line in RETIRED_FLAGS.items():
        assert set(re.findall(r"--(\w+)", line)) <= own | others, name
        assert "\n" not in line and len(line) < 120 and line[-1] not in ".;"


def test_a_message_says_where_a_flag_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "recipe.flags"
    path.write_text("--size=-9\n--nodeep\n")
    message = f"error: --size must be positive (--size comes from {path})\n"
    assert start(f"--flagfile={path}").stderr == start("--flagfile", str(path)).stderr == message
    outer = tmp_path / "outer.flags"
    outer.write_text(f"--flagfile={path}\n")
    assert str(outer) in start(f"--flagfile={outer}").stderr
    assert start(f"--flagfile={path}", "--size=-2").stderr == "error: --size must be positive\n"
    path.write_text("--size=many\n")
    assert f"--size comes from {path}" in start(f"--flagfile={path}").stderr
    noted = json.dumps({"--size=-1": "the variable SIZE"})
    assert "(--size comes from the variable SIZE)" in start("--size=-1", **{FLAG_ORIGINS: noted}).stderr
    assert "comes from" not in start("--size=-2", **{FLAG_ORIGINS: noted}).stderr
