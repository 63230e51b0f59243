"""The folder that scripts/pretrain_text.sh fills, and the command that it belongs to."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from bert_pretrain.system.files import open_regular, write_json
from bert_pretrain.system.locks import SCRIPT

_COMMAND = "command.json"


class Folder(NamedTuple):
    """Names within OUT."""

    path: str

    def recipe(self, name: str) -> str:
        """A file that says what was chosen."""
        return os.path.join(self.path, "recipe", name)

    @property
    def data(self) -> str:
        """The output of scripts/make_data.sh: text/, vocab.txt, train/, eval/."""
        return os.path.join(self.path, "data")

    @property
    def vocab_file(self) -> str:
        """The model's vocabulary."""
        return os.path.join(self.data, "vocab.txt")

    @property
    def calibration(self) -> str:
        """The output of the short run that measures the speed."""
        return os.path.join(self.path, "recipe", "speed")

    @property
    def run(self) -> str:
        """The output_dir of training."""
        return os.path.join(self.path, "run")

    @property
    def model(self) -> str:
        """The Hugging Face folder."""
        return os.path.join(self.path, "model")


def claim(folder: Folder, command: dict[str, Any]) -> None:
    """Notes in a new folder what it is made by. ValueError where it is made by something else."""
    path = os.path.join(folder.path, _COMMAND)
    if os.path.lexists(path):
        _require_same(folder, path, _read(path), command)
        return
    found = os.listdir(folder.path) if os.path.isdir(folder.path) else []
    # Neither the script's lock counts, nor what a start left that was killed here.
    if any(name != SCRIPT.file_name and not name.endswith(".partial") for name in found):
        raise ValueError(f"{folder.path}: the folder holds something else; name another one for the model")
    try:
        write_json(path, command)
    except OSError as error:
        raise ValueError(f"{folder.path}: cannot be written: {error.strerror}") from None


def _read(path: str) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}; move it away, or name another folder") from None
    return content if isinstance(content, dict) else {}


def _require_same(folder: Folder, path: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in dict.fromkeys([*now, *before]):
        if name != "flags" and before.get(name) != now.get(name):
            raise ValueError(
                f"{folder.path} was begun with {name} {before.get(name)}, this command has {now.get(name)}; give the "
                f"same, or name another folder"
            )
    then, flags = before.get("flags") or {}, now["flags"]
    for name in dict.fromkeys([*flags, *then]):
        if then.get(name) != flags.get(name):
            begun, given = (f"--{name}={found[name]}" if name in found else f"no --{name}" for found in (then, flags))
            raise ValueError(
                f"{folder.path} was begun with {begun}, this command has {given}; give the same flags "
                f"({path} has them), or name another folder"
            )
