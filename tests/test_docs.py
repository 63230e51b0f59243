"""The tables of flags in docs/ are made from the dataclasses; links and named files exist.

python -m tests.test_docs rewrites the tables.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pytest

from bert_pretrain import cli
from bert_pretrain.config import training
from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.config.export import ExportConfig, FillMaskConfig
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.option import facts_of, flag_groups
from bert_pretrain.config.recipe import LauncherConfig, RecipeConfig
from bert_pretrain.config.report import ReportConfig
from bert_pretrain.config.training import MaskingConfig
from tests.config.test_training import DEEPSPARKHUB_FLAGS

ROOT = Path(__file__).parent.parent
FLAGS = ROOT / "docs" / "flags.md"
END = "<!-- end of flags -->"
PARTS = tuple(training.PARTS.values())
MAKE_DATA_PARTS = (MakeDataConfig, ExampleConfig, TextConfig)
# The flags of google-research/bert's create_pretraining_data.py.
GOOGLE_FLAGS = """input_file output_file vocab_file do_lower_case do_whole_word_mask max_seq_length
max_predictions_per_seq random_seed dupe_factor masked_lm_prob short_seq_prob""".split()


class Table(NamedTuple):
    """The flags of one entry point, after a marker on a page."""

    page: Path
    begin: str
    parts: tuple[type, ...]
    marked: Collection[str]  # with *: names that the replaced script has, too


TABLES = (
    Table(FLAGS, "<!-- flags of run: made from the dataclasses -->", PARTS, DEEPSPARKHUB_FLAGS),
    Table(FLAGS, "<!-- flags of make_data: made from the dataclasses -->", MAKE_DATA_PARTS, GOOGLE_FLAGS),
    Table(FLAGS, "<!-- flags of check_data: made from the dataclasses -->", (CheckDataConfig, EstimateConfig), ()),
    Table(FLAGS, "<!-- flags of report: made from the dataclasses -->", (ReportConfig,), ()),
    Table(FLAGS, "<!-- flags of export: made from the dataclasses -->", (ExportConfig,), ()),
    Table(FLAGS, "<!-- flags of pretrain_text: made from the dataclasses -->", (RecipeConfig, LauncherConfig), ()),
    Table(FLAGS, "<!-- flags of fill_mask: made from the dataclasses -->", (FillMaskConfig,), ()),
)


def markdown(table: Table) -> str:
    lines = []
    for group in flag_groups(*table.parts):
        lines += ["", f"**{group.title}**", "", "| flag | type | default | meaning |", "|---|---|---|---|"]
        for field in group.fields:
            facts = facts_of(field)
            choices, also = facts.choices, f" Also `--{facts.old_name}`." if facts.old_name else ""
            kind = " or ".join(choices) if choices else re.sub(r"Optional\[(.*)\]", r"\1", field.type)
            mark = "*" if field.name in table.marked else ""
            default = "required" if facts.required else "" if field.default is None else field.default
            lines.append(f"| `--{field.name}`{mark} | {kind} | {default} | {facts.help}{also} |")
    return "\n".join([*lines, ""])


def with_table(text: str, table: Table) -> str:
    before, rest = text.split(table.begin)
    return f"{before}{table.begin}\n{markdown(table)}\n{END}{rest.split(END, 1)[1]}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.parts[0].__name__)
def test_the_table_of_flags_is_the_dataclasses(table: Table) -> None:
    text = table.page.read_text(encoding="utf-8")
    assert text == with_table(text, table), "run: python -m tests.test_docs"


def test_the_marked_flags_exist() -> None:
    for table in TABLES:
        assert set(table.marked) <= {field.name for part in table.parts for field in dataclasses.fields(part)}


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name in re.findall(r"`((?:scripts|configs|docs|benchmarks|tests|bert_pretrain)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_recipe_names_known_flags_and_its_command() -> None:
    for recipe in (ROOT / "configs" / "run").glob("*.flags"):
        text = recipe.read_text(encoding="utf-8")
        assert re.search(r"^# command: ", text, re.MULTILINE | re.IGNORECASE), f"{recipe.name} has no command"
        parts = MAKE_DATA_PARTS if recipe.name == "mlperf_data.flags" else PARTS
        known = {field.name for part in parts for field in dataclasses.fields(part)}
        plain = set(re.findall(r"^--(\w+)", text, re.MULTILINE))
        assert all(name in known or re.sub("^no", "", name) in known for name in plain), recipe.name


RECIPES = sorted((ROOT / "configs" / "run").glob("*.flags"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_read_and_valid(recipe: Path) -> None:
    is_data = recipe.name == "mlperf_data.flags"
    for part in cli.read_flagfile(str(recipe), MAKE_DATA_PARTS if is_data else PARTS):
        if not isinstance(part, (training.RunConfig, MakeDataConfig, MaskingConfig)):  # these lack the user's paths
            part.check()
    text = recipe.read_text(encoding="utf-8")
    if not is_data:
        assert re.search("^# hardware: ", text, re.MULTILINE) and re.search("measured", text), recipe.name


if __name__ == "__main__":
    for made in TABLES:
        made.page.write_text(with_table(made.page.read_text(encoding="utf-8"), made), encoding="utf-8")
