"""Any names of folders and files: from text to a report, each means itself, and none is a pattern, a list or an option.

Beside what is named lies what the name would match if it were read as one: text that must not be found.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from bert_pretrain import cli, fill_mask
from bert_pretrain.check_data import __main__ as check_data
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.distributed import connection
from bert_pretrain.export import __main__ as export
from bert_pretrain.export import verification
from bert_pretrain.make_data import __main__ as make_data
from bert_pretrain.report import __main__ as report
from bert_pretrain.train import job, loop
from tests.e2e import runs
from tests.fuzz.examples import fuzz

pytest.importorskip("sentencex")

WORDS = [first + second for first in ("ba", "ko", "li", "mu", "ne", "sa") for second in ("r", "l", "n", "s", "t", "nd")]
OTHER_WORD = "elsewhere"  # of text that no name means

# What shells, patterns, lists, URLs, formats and TensorFlow read as something else; a byte that is no UTF-8.
PIECES = st.sampled_from(
    [*"[]*?\\{}!^-,;:'\"`$&|<>()#%~=+@. aü中1", "[1]", "a,b", "\udcff", "\udcff", "\udcff", "s3:", "..", "${HOME}"]
)
NAMES = st.lists(PIECES, min_size=1, max_size=5).map("".join).filter(lambda name: set(name) != {"."})
# Files below a folder may have control characters, which are refused in flags.
INNER_NAMES = st.lists(PIECES | st.sampled_from("\n\t\r\x07\u2028"), min_size=1, max_size=4).map("".join)


def text(rng: random.Random, word: str) -> str:
    """Documents of which each sentence has the word."""
    documents = [[" ".join([*rng.choices(WORDS, k=8), word]).capitalize() for _ in range(9)] for _ in range(9)]
    return "\n\n".join(". ".join(document) + "." for document in documents)


def run(module: ModuleType, *arguments: str, given: Sequence[str] = ()) -> None:
    """A command in this process. arguments: those that are no flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "read_settings", lambda kind: cli.read_arguments(given, [kind])[0])
        patch.setattr(cli, "explicit_flags", lambda *kinds: frozenset())
        work: Callable[..., int] = module._run
        assert work(*([list(arguments)] if arguments else [])) == 0, given


def train(given: Sequence[str]) -> None:
    config = Config(**dict(zip(PARTS, cli.read_arguments(given, list(PARTS.values())))))
    config.check()
    with connection.connected(False) as ranks:
        assert loop.run_job(job.with_local_paths(config, ranks), ranks) == 0


def plant(path: Path, rng: random.Random) -> None:
    """What the last part of a path would mean as a pattern or as a list."""
    name = path.name
    matched = name
    for pattern in ("[1]", "[a]"):
        matched = matched.replace(pattern, pattern[1])
    matched = matched.replace("*", "x").replace("?", "x")
    others = {part.strip() for part in name.split(",")} | {name.strip(), name.replace("\\", "")}
    others |= {matched} if fnmatch.fnmatchcase(matched, name) else set()
    for other in others - {name, "", ".", ".."}:
        if "/" not in other and not (path.parent / other).exists():
            (path.parent / other).mkdir()
            (path.parent / other / "text.txt").write_text(text(rng, OTHER_WORD))


# A tree takes seconds: FUZZ_EXAMPLES=90000 makes 300 at random, beside these two.
_PHASES = tuple(Phase) if os.environ.get("FUZZ_EXAMPLES") else (Phase.explicit,)


@settings(fuzz(share=1 / 300), deadline=None, phases=_PHASES)
@example(
    names=["out [8]", "a,b", "q[1]\udcff", "'*\\", "-\udcff ?"],
    inner=["[1]", "new\nline", "-\udcff,"],
    is_relative=True,
    has_saved_model=False,
)
@example(
    names=[" $HOME", '--"q?"', "s3:,~*", "[a]\\", "~{a,b}"],
    inner=["\t*", "\x07\u2028"],
    is_relative=False,
    has_saved_model=False,
)
@given(
    names=st.lists(NAMES, min_size=5, max_size=5, unique=True),
    inner=st.lists(INNER_NAMES, min_size=1, max_size=3, unique=True),
    is_relative=st.booleans(),
    has_saved_model=st.sampled_from([False, False, False, True]),  # it takes a third of the time
)
def test_every_name_means_itself(
    tmp_path: Path, names: list[str], inner: list[str], is_relative: bool, has_saved_model: bool
) -> None:
    rng = random.Random(0)
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    outer, source, made, out, exported = names
    top = root / outer
    top.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        parent = "." if is_relative else str(top)
        paths = [f"{parent}/{name}" for name in (source, made, out, exported)]
        _run_all(*paths, inner, rng, has_saved_model)


def _run_all(
    source: str, made: str, out: str, exported: str, inner: Sequence[str], rng: random.Random, has_saved_model: bool
) -> None:
    for folder in (source, made, out, exported):
        plant(Path(folder), rng)
    Path(source).mkdir(exist_ok=True)
    shutil.rmtree(source)
    for number, name in enumerate(inner):
        path = Path(source, f"{number}{name}", f"{name.lstrip('.') or number}.txt")
        path.parent.mkdir(parents=True)
        path.write_text(text(rng, "sought"))

    alone = ("--num_processes=1",)
    run(make_data, given=[*alone, "--make_text", f"--input_file={source}", f"--output_dir={made}/text"])
    lines = [path.read_text() for path in Path(made, "text").glob("*/*.txt")]
    assert lines and all(OTHER_WORD not in content and "sought" in content for content in lines)
    vocabulary, train_text = f"--vocab_file={made}/vocab.txt", f"--input_file={made}/text/train"
    run(make_data, given=[*alone, "--train_vocab", vocabulary, train_text, "--vocab_size=70"])
    for part in ("train", "eval"):
        flags = [vocabulary, f"--input_file={made}/text/{part}", f"--output_dir={made}/{part}", "--num_shards=1"]
        lengths = ["--max_seq_length=32", "--max_predictions_per_seq=4", "--dupe_factor=1"]
        run(make_data, given=[*alone, *flags, *lengths])
    shards = [f"--input_files_dir={made}/train,{made}/eval"]
    run(check_data, given=[*alone, *shards, vocabulary])
    assert Path(made, "eval", "manifest.json").is_file()

    num_entries = len(Path(made, "vocab.txt").read_text().splitlines())
    model = dataclasses.replace(runs.MODEL, vocab_size=num_entries, num_hidden_layers=1)
    runs.write_model(Path(made, "config.json"), model)
    values: dict[str, Any] = {
        "do_train": True, "train_batch_size": 2, "learning_rate": 1e-2, "num_warmup_steps": 1, "use_xla": False,
        "peak_tflops": 1.0, "save_checkpoints_steps": 1, "keep_checkpoint_max": 2, "do_eval": True,
        "input_files_dir": f"{made}/train", "eval_files_dir": f"{made}/eval", "output_dir": out,
        "bert_config_file": f"{made}/config.json", "max_eval_steps": 1,
    }  # fmt: skip
    for num_updates in (2, 3):
        train(runs.flags(**values, num_train_steps=num_updates))
    description = json.loads(Path(out, "run.json").read_text())
    assert [start["update"] for start in description["starts"]] == [0, 2]
    assert description["settings"]["run"]["output_dir"] == out
    assert Path(out, "model.ckpt-2.index").is_file() and Path(out, "model.ckpt-3.index").is_file()

    Path(exported).mkdir(exist_ok=True)
    hf_dir, saved_model_dir, prefix = (f"{exported}/{kind}{Path(exported).name}" for kind in "hst")
    flags = [f"--hf_dir={hf_dir}", f"--tf1_prefix={prefix}"]
    flags += [f"--saved_model_dir={saved_model_dir}"] if has_saved_model else []
    run(export, given=[f"--checkpoint={out}", vocabulary, *flags])
    if has_saved_model:
        verification._logits_of_saved_model(saved_model_dir, verification.random_examples(model))
    run(fill_mask, hf_dir, "bar kol [MASK] sand")
    flags = [f"--bert_config_file={made}/config.json", vocabulary]
    run(fill_mask, prefix, "bar kol [MASK] sand", given=flags)
    run(fill_mask, out, given=[vocabulary, f"--held_out_shards={made}/eval"])
    train(runs.flags(**{**values, "output_dir": f"{exported}/again", "init_checkpoint": prefix}, num_train_steps=1))
    only_evaluated = {"do_train": False, "output_dir": f"{exported}/evaluated", "eval_checkpoint_path": prefix}
    train(runs.flags(**{**values, **only_evaluated}))
    run(report, out, given=[f"--output={exported}/{Path(out).name}.html"])
    assert os.path.getsize(f"{exported}/{Path(out).name}.html") > 1000
    assert not [path for path in Path(out).iterdir() if path.name.startswith(".unpublished")]
