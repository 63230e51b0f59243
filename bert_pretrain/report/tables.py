"""The tables of a report: results row, settings, data, model, versions, starts. Values are text, runs are columns."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

from bert_pretrain.config import training
from bert_pretrain.report.run_folder import EVALUATIONS, METRICS, Run, is_number, section

NONE = "\N{EN DASH}"
# Column of the results row, key of results.json, format.
_RESULTS = (
    ("acc", "masked_lm_accuracy", "{:.6f}"),
    ("fps (updates/s)", "updates_per_second", "{:.6f}"),
    ("examples/s", "examples_per_second", "{:.2f}"),
    ("tokens/s", "tokens_per_second", "{:.0f}"),
)
_MORE_RESULTS = (
    ("masked-LM loss", "masked_lm_loss", "{:.4f}"),
    ("next-sentence accuracy", "next_sentence_accuracy", "{:.4f}"),
    ("masked-LM accuracy before training", "initial_masked_lm_accuracy", "{:.6f}"),
    ("evaluation examples", "eval_examples", "{:,}"),
    ("updates", "updates", "{:,}"),
    ("examples", "examples", "{:,}"),
    ("padding", "padding_share", "{:.2%}"),
    ("waiting for data", "input_wait_share", "{:.2%}"),
    ("utilization", "utilization", "{:.1%}"),
)


class Row(NamedTuple):
    """A line of a table."""

    name: str
    cells: list[str]  # one for each run
    is_marked: bool = False  # differs from the default, or between the runs


class Table(NamedTuple):
    """A table with a column for each run."""

    title: str
    rows: list[Row]


class Start(NamedTuple):
    """One start of a run."""

    time: str
    update: str
    where: str
    changed: str


def results(runs: Sequence[Run]) -> Table:
    """The values of the results row, then the other values of results.json; a dash for what is not known."""
    rows = [
        Row("Model", ["BERT Pretraining" for _ in runs]),
        Row("Device", [f"{run.description.get('device', '?')} x{run.description.get('ranks', '?')}" for run in runs]),
    ]
    rows += [Row(label, [_cell(run.results.get(key), text) for run in runs]) for label, key, text in _RESULTS]
    rows.append(Row("end", [end(run) for run in runs]))
    rows += [Row(label, [_cell(run.results.get(key), text) for run in runs]) for label, key, text in _MORE_RESULTS]
    rows.append(Row("seconds per update, median", [_nested(run, "step_seconds", "median") for run in runs]))
    rows.append(Row("seconds per update, 95th percentile", [_nested(run, "step_seconds", "p95") for run in runs]))
    rows.append(
        Row("longest pause for a checkpoint, s", [_nested(run, "checkpoint_pause_seconds", "max") for run in runs])
    )
    rows.append(Row("memory of rank 0 at most", [_gibibytes(run.results.get("peak_memory_bytes")) for run in runs]))
    return Table("Value", rows)


def end(run: Run) -> str:
    """How the run ended, or that it has not."""
    if run.is_locked:
        return "in progress"
    return str(run.results.get("end", "no results"))


def settings(runs: Sequence[Run]) -> list[Table]:
    """A table for each part of the settings; marked: not the default, or not the same in all runs."""
    tables = []
    for part, config in training.PARTS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        values = [section(section(run.description, "settings"), part) for run in runs]
        names = [
            name for name in dict.fromkeys([*defaults, *(n for one in values for n in one)]) if _is_known(name, values)
        ]
        rows = []
        for name in names:
            found = [one[name] for one in values if name in one]
            is_marked = any(value != defaults.get(name) for value in found) or any(v != found[0] for v in found)
            rows.append(Row(f"--{name}", [_plain(one.get(name)) if name in one else NONE for one in values], is_marked))
        tables.append(Table(config.__doc__.strip().rstrip("."), rows))
    return [table for table in tables if table.rows]


def details(runs: Sequence[Run]) -> list[Table]:
    """Model, data, device and versions."""
    contents = [run.description for run in runs]
    device = [{key: one.get(key) for key in ("device", "ranks", "compute_dtype", "backend")} for one in contents]
    data = [{**_data(one, "train", "training"), **_data(one, "eval", "evaluation")} for one in contents]
    tables = [
        _table("Model", [section(one, "model") for one in contents]),
        _table("Data", data),
        _table("Device", device),
        _table("Versions", [section(one, "versions") for one in contents]),
    ]
    return [table for table in tables if table.rows]


def command(run: Run) -> str:
    """The command line of the last start, empty where it is not known."""
    words = run.description.get("command")
    return " ".join(map(str, words)) if isinstance(words, list) else ""


def starts(run: Run) -> list[Start]:
    """All starts of a run, the first one first."""
    found = run.description.get("starts")
    rows = []
    for start in (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ():
        changed = section(start, "changed").items()
        told = ", ".join(
            f"{name}: {_plain(pair[0])} \N{RIGHTWARDS ARROW} {_plain(pair[1])}"
            for name, pair in changed
            if isinstance(pair, list) and len(pair) == 2
        )
        where = f"{start.get('host', '?')}, process {start.get('pid', '?')}, {start.get('ranks', '?')} rank(s)"
        rows.append(Start(moment(start.get("time")), _plain(start.get("update")), where, told or NONE))
    return rows


def moment(seconds: Any) -> str:
    """Seconds since the epoch as local date and time."""
    if not is_number(seconds) or not 0 < seconds < 2**33:
        return NONE
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def evaluated(run: Run) -> str:
    """The masked-LM accuracy of the last evaluation, from results.json, else metrics.jsonl."""
    value = run.results.get("masked_lm_accuracy")
    return _cell(value if is_number(value) else run.last(EVALUATIONS, "masked_lm_accuracy"), "{:.2%}")


def speed(run: Run) -> str:
    """Examples per second, of the whole start where results.json has it, else the latest in metrics.jsonl."""
    value = run.results.get("examples_per_second")
    return _cell(value if is_number(value) else run.last(("train",), "examples_per_second"), "{:,.1f}")


def shape(run: Run) -> str:
    """The model and the device in a few words, as far as run.json tells."""
    model = section(run.description, "model")
    layers, hidden = model.get("num_hidden_layers"), model.get("hidden_size")
    network = f"{layers} layers \N{MULTIPLICATION SIGN} {hidden}, " if layers and hidden else ""
    device, ranks = run.description.get("device"), run.description.get("ranks")
    return f"{network}{device} \N{MULTIPLICATION SIGN} {ranks}" if device and ranks else network.rstrip(", ")


def last_line(run: Run) -> str:
    """When metrics.jsonl was last added to."""
    return moment(run.points[-1].get("time")) if run.points else f"{METRICS} is empty"


def _table(title: str, values: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for name in dict.fromkeys(name for one in values for name in one):
        found = [one.get(name) for one in values]
        if any(value is not None for value in found):
            rows.append(Row(name, [_plain(value) for value in found], any(value != found[0] for value in found)))
    return Table(title, rows)


def _data(content: dict[str, Any], key: str, label: str) -> dict[str, Any]:
    data = section(section(content, "data"), key)
    paths = data.get("paths")
    folder = str(paths[0]).rpartition("/")[0] if isinstance(paths, list) and paths else None
    shards = len(paths) if isinstance(paths, list) else None
    values = {
        "records": data.get("records"),
        "shards": shards,
        "fingerprint": data.get("fingerprint"),
        "folder": folder,
    }
    return {f"{label}: {name}": value for name, value in values.items() if value is not None}


def _is_known(name: str, values: Sequence[dict[str, Any]]) -> bool:
    return any(name in one for one in values)


def _nested(run: Run, name: str, key: str) -> str:
    return _cell(section(run.results, name).get(key), "{:.3g}")


def _gibibytes(value: Any) -> str:
    return f"{value / 2**30:.2f} GiB" if is_number(value) else NONE


def _cell(value: Any, text: str) -> str:
    return text.format(value) if is_number(value) else NONE


def _plain(value: Any) -> str:
    return NONE if value is None else f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value)
