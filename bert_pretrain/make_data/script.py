"""From text to shards for training and evaluation, step by step; each step that is finished is not done again.

python -m bert_pretrain.make_data.script SOURCE OUTPUT_DIR [flags of bert_pretrain.make_data for the shards] is what
scripts/make_data.sh runs. The comment there explains the arguments and the environment variables.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Union

from bert_pretrain import cli
from bert_pretrain.config.languages import find_language
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.option import FLAG_ORIGINS
from bert_pretrain.data.findings import TOLD_ELSEWHERE
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.make_data.text import wikipedia_dump
from bert_pretrain.system import streams
from bert_pretrain.system.console import log
from bert_pretrain.system.files import num_cores, open_regular, require_free_name
from bert_pretrain.system.script import DRY_RUN, doing, launch, locked_output, module_command

_NUMBERS = ("NP", "VOCAB_SIZE", "NUM_SHARDS", "NUM_HELD_OUT", "NUM_EVAL_EXAMPLES")
_CHECKED = {"the flags": [MakeDataConfig, ExampleConfig, TextConfig], "TEXT_FLAGS": [TextConfig, MakeDataConfig]}
_NUM_SHARDS, _VOCAB_SIZE = 500, 30_522  # of a text that is large enough
# Flag -> the script's variable that gives it.
_VARIABLES = {
    "--num_processes": "the variable NP",
    "--num_held_out": "the variable NUM_HELD_OUT",
    "--num_shards": "the variable NUM_SHARDS",
    "--vocab_size": "the variable VOCAB_SIZE",
    "--vocab_file": "the variable VOCAB_FILE",
    "--num_picked_examples": "the variable NUM_EVAL_EXAMPLES",
}


def make_data(source: str, output: str, flags: Sequence[str], environ: Mapping[str, str]) -> None:
    """Runs the steps. SystemExit where one fails, HeldError where another script works in the folder `output`.

    source: a Wikipedia dump or a folder of text. flags: of bert_pretrain.make_data, for vocabulary and shards. environ:
    the variables of scripts/make_data.sh.
    """
    num_processes, num_held_out = environ.get("NP") or num_cores(), environ.get("NUM_HELD_OUT") or "10000"
    text_flags = environ.get("TEXT_FLAGS", "").split()
    if environ.get("TEXT_FLAGFILE"):
        text_flags.append(f"--flagfile={environ['TEXT_FLAGFILE']}")
    train_text, eval_text = f"{output}/text/train", f"{output}/text/eval" if num_held_out != "0" else None
    vocab_file = environ.get("VOCAB_FILE") or f"{output}/vocab.txt"
    vocabulary = f"--vocab_file={vocab_file}"

    def make(stage: str, *arguments: str, **fixed: Union[str, int, None]) -> None:
        """fixed: flags that come last, so that the user's cannot change them; None: not given."""
        doing(stage)
        last = [f"--{name}" if value is True else f"--{name}={value}" for name, value in fixed.items() if value]
        flags = [f"--num_processes={num_processes}", *arguments, *last]
        origins = {flag: _VARIABLES.get(flag.partition("=")[0], "") for flag in flags}
        origins.update({flag: origins[flag] or "scripts/make_data.sh" for flag in last})
        # The findings are told by check_data, which comes last.
        noted = {FLAG_ORIGINS: json.dumps(origins), TOLD_ELSEWHERE: "1"}
        launch(*module_command("bert_pretrain.make_data"), *flags, environ=noted)

    if not DRY_RUN:
        if not os.path.lexists(source):
            raise ValueError(f"{source}: no such file or folder; give a Wikipedia dump, or a folder of text")
        _check(environ, flags, text_flags)
    with locked_output(output):
        launch("mkdir", "-p", "--", output)
        is_dump = source.endswith(wikipedia_dump.SUFFIXES)
        if is_dump:
            if os.path.isfile(source):
                text_flags = [*_flags_of_language(source), *text_flags]
            dump, source, partial = source, f"{output}/extracted", f"{output}/extracted.partial"
            if not os.path.isdir(source):
                doing("extracting the articles")
                launch("rm", "-rf", "--", partial)
                launch(*module_command(wikipedia_dump.__name__), dump, partial, str(num_processes))
                account = wikipedia_dump.ACCOUNT_FILE
                launch("mv", "--", f"{partial}/{account}", f"{output}/{account}")
                launch("sync", "-f", "--", partial)  # what has its last name is complete, also after a power loss
                launch("mv", "--", partial, source)
        make(
            "making the text", f"--num_held_out={num_held_out}", *text_flags,
            make_text=True, input_file=source, output_dir=f"{output}/text", held_out="mlperf" if is_dump else None,
        )  # fmt: skip
        num_shards, vocab_size = _choose_sizes(f"{output}/text/text_report.json", environ)
        if num_shards != str(_NUM_SHARDS):
            log.warning(f"{output}: {num_shards} shards, a vocabulary of {vocab_size} entries")
        if not eval_text:
            log.warning(f"NUM_HELD_OUT=0: no text is held out, so {output} gets no eval folder")
        if not os.path.isfile(vocab_file):
            make(
                "making the vocabulary", vocabulary, f"--vocab_size={vocab_size}", *flags,
                train_vocab=True, input_file=train_text, eval_input_file=eval_text, num_shards=num_shards,
            )  # fmt: skip
        make(
            "making the shards for training", vocabulary, *flags,
            input_file=train_text, output_dir=f"{output}/train", num_shards=num_shards,
        )  # fmt: skip
        if eval_text:
            make(
                "making the shards for evaluation", vocabulary, *flags,
                input_file=eval_text, output_dir=f"{output}/eval", num_shards=1,
                mode="exact" if is_dump and not _makes_single_sequences(flags) else None,
                num_picked_examples=environ.get("NUM_EVAL_EXAMPLES") or 10_000,
            )  # fmt: skip
        doing("checking the shards")
        folders = f"{output}/train,{output}/eval" if eval_text else f"{output}/train"
        launch(*module_command("bert_pretrain.check_data"), f"--input_files_dir={folders}", vocabulary)


def _makes_single_sequences(flags: Sequence[str]) -> bool:
    """Whether the user's flags ask for records that exact mode, of pairs, cannot make."""
    (examples,) = cli.read_arguments(flags, [ExampleConfig])
    return examples.single_sequence


def _flags_of_language(dump: str) -> list[str]:
    """The flag of the language that the siteinfo of a dump names; none where it is not known."""
    code = wikipedia_dump.find_dump_language(dump)
    if code is None or find_language(code) is None:
        log.warning(
            f"{dump}: language {code or 'not named'}, told by the letters; TEXT_FLAGS=--language=CODE names one"
        )
        return []
    log.warning(f"{dump}: language {code} by its siteinfo; TEXT_FLAGS=--language=CODE names another")
    return [f"--language={code}"]


def _check(environ: Mapping[str, str], flags: Sequence[str], text_flags: Sequence[str]) -> None:
    """ValueError, before the first step, for what a later one would refuse."""
    for name in _NUMBERS:
        number = environ.get(name, "")
        if number and not number.isdecimal():
            raise ValueError(f"{name}={number} is no number; give one, or leave it out")
    for arguments, name in ((flags, "the flags"), (text_flags, "TEXT_FLAGS")):
        try:
            for settings in cli.read_arguments(arguments, _CHECKED[name], has_others=False):
                if not isinstance(settings, MakeDataConfig):  # whose paths are this script's
                    settings.check()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    vocab_file = environ.get("VOCAB_FILE", "")
    if os.path.isfile(vocab_file):
        load_vocabulary(vocab_file)
    elif vocab_file:
        require_free_name("VOCAB_FILE", vocab_file)


def _choose_sizes(text_report: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The number of shards and of the vocabulary's entries: the user's, else by the size of the text.

    A shard needs documents enough to draw random second sentences from, and an entry text enough to occur in.
    """
    num_shards, vocab_size = _NUM_SHARDS, _VOCAB_SIZE
    if os.path.isfile(text_report):  # with DRY_RUN=1 there may be none
        with open_regular(text_report) as file:
            report = json.load(file)
        num_bytes, num_documents = report["train_bytes"], report["train_documents"]
        num_shards = max(1, min(num_shards, num_bytes // 1_000_000, num_documents // 20))
        vocab_size = min(vocab_size, 1000 + int(7 * num_bytes**0.5))
    return environ.get("NUM_SHARDS") or str(num_shards), environ.get("VOCAB_SIZE") or str(vocab_size)


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code."""
    streams.secure_streams()
    source, output, *flags = arguments
    try:
        make_data(source, output, flags, os.environ)
    except ValueError as error:
        log.warning(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
