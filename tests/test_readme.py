"""What the README states about flags is made from the dataclasses. To rewrite it: python -m tests.test_readme"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bert_pretrain.config.training import DataConfig, DeviceConfig, OptimConfig, RunConfig
from tests.config.test_training import SEED_FLAGS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- flags: made from the dataclasses -->", "<!-- end of flags -->"
PARTS = (RunConfig, DataConfig, OptimConfig, DeviceConfig)


def table() -> str:
    """Every flag of bert_pretrain.run as a Markdown table; * marks those that the seed has too."""
    lines = ["| flag | type | default | meaning |", "|---|---|---|---|"]
    for part in PARTS:
        lines.append(f"| **{part.__doc__.strip()}** | | | |")
        for field in dataclasses.fields(part):
            kind = re.sub(r"Optional\[(.*)\]", r"\1", field.type)
            choices = field.metadata["choices"]
            mark = "*" if field.name in SEED_FLAGS else ""
            default = "" if field.default is None else field.default
            kind = " or ".join(choices) if choices else kind
            lines.append(f"| `--{field.name}`{mark} | {kind} | {default} | {field.metadata['help']} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def test_the_table_of_flags_is_the_dataclasses() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m tests.test_readme"


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"], ids=str)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name in re.findall(r"`((?:scripts|configs|docs|benchmarks|tests|bert_pretrain)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_recipe_names_known_flags_and_its_command() -> None:
    known = {field.name for part in PARTS for field in dataclasses.fields(part)}
    for recipe in (ROOT / "configs" / "run").glob("*.flags"):
        text = recipe.read_text(encoding="utf-8")
        assert re.search(r"^# command: ", text, re.MULTILINE | re.IGNORECASE), f"{recipe.name} has no command"
        if "data" in recipe.stem:
            continue
        plain = set(re.findall(r"^--(\w+)", text, re.MULTILINE))
        assert all(name in known or name.removeprefix("no") in known for name in plain), recipe.name


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
