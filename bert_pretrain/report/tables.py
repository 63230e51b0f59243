"""The tables of a report: results row, settings, data, model, versions, starts. Values are text, runs are columns."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from bert_pretrain.config import training
from bert_pretrain.report.run_folder import EVALUATIONS, METRICS, Run, is_number, section

NONE = "\N{EN DASH}"
# Name, key of results.json or two of them, format. Names in brackets are columns of the results row.
_ACCURACY = (
    ("masked-LM accuracy (acc)", "masked_lm_accuracy", "{:.6f}"),
    ("masked-LM accuracy before training", "initial_masked_lm_accuracy", "{:.6f}"),
    ("masked-LM loss", "masked_lm_loss", "{:.4f}"),
    ("next-sentence accuracy", "next_sentence_accuracy", "{:.4f}"),
    ("next-sentence loss", "next_sentence_loss", "{:.4f}"),
    ("evaluation examples", "eval_examples", "{:,}"),
)
_SPEED = (
    ("updates/s (fps)", "updates_per_second", "{:.6f}"),
    ("examples/s", "examples_per_second", "{:.2f}"),
    ("tokens/s, without padding", "tokens_per_second", "{:.0f}"),
    ("seconds per update, median", "step_seconds.median", "{:.3g}"),
    ("seconds per update, 95th percentile", "step_seconds.p95", "{:.3g}"),
    ("longest pause for a checkpoint, seconds", "checkpoint_pause_seconds.max", "{:.3g}"),
    ("padding, share of computed tokens", "padding_share", "{:.2%}"),
    ("waiting for data, share of time", "input_wait_share", "{:.2%}"),
    ("utilization of the device", "utilization", "{:.1%}"),
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


def results(runs: Sequence[Run]) -> list[Table]:
    """The values of results.json; a dash for what one run does not have, no row for what none has."""
    extent = [
        Row("end", [end(run) for run in runs]),
        Row("device", [device(run) or NONE for run in runs]),
        Row("updates", [f"{run.updates():,}" for run in runs]),
        Row("training examples", [_cell(run.results.get("examples"), "{:,}") for run in runs]),
        Row("memory of rank 0 at most", [_gibibytes(run.results.get("peak_memory_bytes")) for run in runs]),
    ]
    tables = [
        Table("Accuracy", _rows(runs, _ACCURACY)),
        Table("Extent", extent),
        Table("Speed", _rows(runs, _SPEED)),
    ]
    known = [
        table._replace(rows=[row for row in table.rows if any(cell != NONE for cell in row.cells)]) for table in tables
    ]
    return [table for table in known if table.rows]


def _rows(runs: Sequence[Run], values: Sequence[tuple[str, str, str]]) -> list[Row]:
    return [Row(name, [_cell(_nested(run, key), text) for run in runs]) for name, key, text in values]


def end(run: Run) -> str:
    """How the run ended, or that it has not."""
    if run.is_locked:
        return "in progress"
    return str(run.results.get("end", "no results")).replace("_", " ")


def device(run: Run) -> str:
    """What the run was trained on, like "CPU" or "2 GPUs, NVIDIA A100"; empty where run.json does not tell."""
    name, ranks = run.description.get("device"), run.description.get("ranks")
    if not isinstance(name, str) or not is_number(ranks):
        return ""
    if name == "cpu":
        return "CPU" if ranks == 1 else f"CPU, {ranks} ranks"
    return ("GPU" if ranks == 1 else f"{ranks} GPUs") + (f", {name}" if name != "gpu" else "")


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
    labels = {"ranks": "ranks", "compute_dtype": "precision", "backend": "kernels"}
    devices = [
        {"device": device(run) or None, **{label: run.description.get(key) for key, label in labels.items()}}
        for run in runs
    ]
    data = [{**_data(one, "train", "training"), **_data(one, "eval", "evaluation")} for one in contents]
    tables = [
        _table("Model", [section(one, "model") for one in contents]),
        _table("Data", data),
        _table("Device", devices),
        _table("Versions", [section(one, "versions") for one in contents]),
    ]
    return [table for table in tables if table.rows]


def command(run: Run) -> str:
    """The command line of the last start, a flag on each line; empty where it is not known."""
    words = run.description.get("command")
    quoted = map(shlex.quote, map(str, words)) if isinstance(words, list) else ()
    return " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in quoted)


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
        ranks = start.get("ranks", "?")
        where = f"{start.get('host', '?')}, process {start.get('pid', '?')}, {ranks} rank{'s' if ranks != 1 else ''}"
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
    network = f"{layers} layers \N{MULTIPLICATION SIGN} {hidden}" if layers and hidden else ""
    return ", ".join(filter(None, (network, device(run))))


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


def _nested(run: Run, key: str) -> Any:
    """The value of a key, or of two, like "step_seconds.median"."""
    outer, _, inner = key.partition(".")
    return section(run.results, outer).get(inner) if inner else run.results.get(outer)


def _gibibytes(value: Any) -> str:
    return f"{value / 2**30:.2f} GiB" if is_number(value) else NONE


def _cell(value: Any, text: str) -> str:
    return text.format(value) if is_number(value) else NONE


def _plain(value: Any) -> str:
    return NONE if value is None else f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value)
