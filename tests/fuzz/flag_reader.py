"""Reads command lines as an entry point does, one JSON list a line, and answers each with a JSON object.

python -m tests.fuzz.flag_reader run|make_data|check_data. A process, because an entry point defines its flags for the
whole process.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import traceback

from absl import flags

from bert_pretrain import cli
from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.training import PARTS, Config

ENTRY_POINTS = {
    "run": tuple(PARTS.values()),
    "make_data": (MakeDataConfig, ExampleConfig, TextConfig),
    "check_data": (CheckDataConfig, EstimateConfig),
}


def answer(name: str, arguments: list[str]) -> dict[str, str]:
    """Says whether the flags are taken, refused by a message, or an error of ours."""
    for flag in list(flags.FLAGS):
        flags.FLAGS[flag].unparse()
    flags.FLAGS.unparse_flags()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            cli._parse([name, *arguments], None)
            parts = [cli.read_settings(part) for part in ENTRY_POINTS[name]]
            (Config(**dict(zip(PARTS, parts))) if name == "run" else parts[0]).check()
            for part in parts[1:]:
                part.check()
    except SystemExit as end:
        return {"refused": said.getvalue().rstrip("\n")} if end.code == 2 else {"failed": f"exit code {end.code}"}
    except ValueError as error:
        return {"refused": str(error)}
    except BaseException:
        return {"failed": traceback.format_exc()}
    numbers = [value for part in parts for value in vars(part).values() if isinstance(value, float)]
    return {"taken": ""} if all(map(math.isfinite, numbers)) else {"failed": f"not finite: {arguments}"}


if __name__ == "__main__":
    cli.define_flags(*ENTRY_POINTS[sys.argv[1]])
    for line in sys.stdin:
        print(json.dumps(answer(sys.argv[1], json.loads(line))), flush=True)
