"""What makes a better model of the same work: `python -m benchmarks.study --help`. docs/recipes.md reads its results.

A question has variants: flags of bert_pretrain.run on top of one recipe, for the same number of examples. Each variant
and seed is one run, whose held-out accuracy and loss become a line of study.jsonl. Runs that have a line are not run
again, so the command goes on where it was stopped. Runs go side by side, one thread each, because work is compared and
not time. `--plot` makes the tables and pictures of docs/recipes.md anew, without running anything.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
from typing import Any, NamedTuple

from bert_pretrain.config.rampup import RampUp, UpdateSizes

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "recipes.md"
_RESULTS = _ROOT / "docs" / "recipes" / "study.jsonl"
_OURS, _OTHERS, _INK = "#1b6ca8", "#b9c4cd", "#30363b"

# The recipe that questions vary; every flag that matters is here, so that a later default does not change the study.
RECIPE: dict[str, Any] = {
    "optimizer_type": "adamw",
    "learning_rate": 2e-3,
    "beta_2": 0.98,
    "weight_decay_rate": 0.01,
    "lr_schedule": "linear",
    "train_batch_size": 16,
    "masked_lm_prob": 0.3,
    "max_masked_tokens": 48,
    "next_sentence_weight": 0.0,
    "initialization": "informed",
}
_WARMUP_SHARE = 0.1
_MODELS = {
    "2x256": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 1024},
    "4x256": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "4x512": {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048},
}


class Question(NamedTuple):
    """What is varied: variant -> flags on top of RECIPE. The keys model, dropout and warmup_share are no flags."""

    title: str
    examples: int
    variants: dict[str, dict[str, Any]]


_SHORT, _DEMO, _LONG = (
    4_800,
    14_400,
    64_000,
)  # examples of 128 tokens: 40 s, 2 minutes and 10 minutes of the demo's model

_LAMB = {"optimizer_type": "lamb", "learning_rate": 0.01, "beta_2": 0.999}
_BEFORE = {  # what the demo was trained with until --initialization came
    **_LAMB, "lr_schedule": "polynomial", "masked_lm_prob": 0.15, "max_masked_tokens": 0, "next_sentence_weight": 1.0,
    "initialization": "google", "train_batch_size": 32, "dropout": 0.1,
}  # fmt: skip

QUESTIONS: dict[str, Question] = {
    "initialization": Question(
        "initial weights and optimizer",
        _SHORT,
        {
            "informed, AdamW": {},
            "google, AdamW": {"initialization": "google"},
            "google, AdamW, half the rate": {"initialization": "google", "learning_rate": 1e-3},
            "informed, LAMB 0.01": _LAMB,
            "informed, LAMB 0.02": {**_LAMB, "learning_rate": 0.02},
            "google, LAMB 0.01": {"initialization": "google", **_LAMB},
        },
    ),
    "rate": Question(
        "peak learning rate, 2 x 256",
        _SHORT,
        {f"{rate:g}": {"learning_rate": rate} for rate in (1e-3, 2e-3, 3e-3, 4e-3)},
    ),
    "rate 4x256": Question(
        "peak learning rate, 4 x 256",
        _SHORT,
        {f"{rate:g}": {"learning_rate": rate, "model": "4x256"} for rate in (1e-3, 2e-3, 4e-3)},
    ),
    "rate 4x512": Question(
        "peak learning rate, 4 x 512",
        _SHORT,
        {f"{rate:g}": {"learning_rate": rate, "model": "4x512"} for rate in (5e-4, 1e-3, 2e-3)},
    ),
    "batch": Question(
        "examples of an update",
        _SHORT,
        {
            "8 at 0.0014": {"train_batch_size": 8, "learning_rate": 1.4e-3},
            "8 at 0.002": {"train_batch_size": 8},
            "16 at 0.002": {},
            "32 at 0.002": {"train_batch_size": 32},
            "32 at 0.003": {"train_batch_size": 32, "learning_rate": 3e-3},
            "64 at 0.004": {"train_batch_size": 64, "learning_rate": 4e-3},
        },
    ),
    "masking": Question(
        "share of the tokens that are masked in training",
        _SHORT,
        {
            "15 %": {"masked_lm_prob": 0.15, "max_masked_tokens": 20},
            "20 %": {"masked_lm_prob": 0.2, "max_masked_tokens": 32},
            "30 %": {},
            "45 %": {"masked_lm_prob": 0.45, "max_masked_tokens": 64},
            "30 %, whole words": {"do_whole_word_mask": True},
        },
    ),
    "schedule": Question(
        "learning rate over time",
        _SHORT,
        {
            "linear": {},
            "linear, no warm-up": {"warmup_share": 0.0},
            "linear, 30 % warm-up": {"warmup_share": 0.3},
            "cosine": {"lr_schedule": "cosine"},
            "constant, linear end of 30 %": {"lr_schedule": "constant", "num_decay_steps": 90},
        },
    ),
    "regularization": Question(
        "dropout, weight decay, next-sentence prediction, second moment",
        _SHORT,
        {
            "none": {},
            "dropout 0.1": {"dropout": 0.1},
            "weight decay 0": {"weight_decay_rate": 0.0},
            "weight decay 0.1": {"weight_decay_rate": 0.1},
            "next-sentence weight 1": {"next_sentence_weight": 1.0},
            "beta_2 0.999": {"beta_2": 0.999},
            "beta_2 0.95": {"beta_2": 0.95},
        },
    ),
    "ramp": Question(
        "smaller updates, or shorter rows, at first",
        _SHORT,
        {
            "none": {},
            "4 to 16 examples over a quarter": {"rampup_batch_size": "4,4,1200"},
            "8 to 32 examples over a half": {"train_batch_size": 32, "rampup_batch_size": "8,8,2400"},
            "32 to 128 tokens over a half": {"rampup_seq_length": "32,32,2400"},
        },
    ),
    "demo": Question(
        "the demo's work, 14,400 examples",
        _DEMO,
        {
            "recipe": {},
            "8 an update": {"train_batch_size": 8, "learning_rate": 1.5e-3},
            "45 % masked": {"masked_lm_prob": 0.45, "max_masked_tokens": 64},
            "constant, linear end of 30 %": {"lr_schedule": "constant", "num_decay_steps": 270},
            "recipe before": _BEFORE,
        },
    ),
    "dropout": Question(
        "dropout, with 64,000 examples",
        _LONG,
        {"none": {}, "0.1": {"dropout": 0.1}},
    ),
    "ten minutes": Question(
        "64,000 examples: ten minutes",
        _LONG,
        {
            "2x256": {},
            "2x256, 32 an update": {"train_batch_size": 32},
            "4x256": {"model": "4x256"},
            "recipe before, no dropout": {**_BEFORE, "dropout": 0.0, "learning_rate": 0.007},
        },
    ),
}


class Run(NamedTuple):
    """One run of the study."""

    question: str
    variant: str
    seed: int
    text: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.text}-{self.question}-{self.variant}-{self.seed}".replace(" ", "_").replace("/", "_")


def settings_of(run: Run) -> dict[str, Any]:
    """The flags of a run, with model, dropout and warmup_share."""
    question = QUESTIONS[run.question]
    return {"model": "2x256", "dropout": 0.0, "warmup_share": _WARMUP_SHARE, **RECIPE, **question.variants[run.variant]}


def train(run: Run, data: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """Trains and evaluates; returns the line of study.jsonl."""
    settings = settings_of(run)
    flags = {name: value for name, value in settings.items() if name not in ("model", "dropout", "warmup_share")}
    examples = QUESTIONS[run.question].examples
    rampup = RampUp.parse("rampup_batch_size", flags.get("rampup_batch_size"))
    updates = UpdateSizes(flags["train_batch_size"], rampup).first_after(examples)
    output_dir = folder / run.name
    shutil.rmtree(output_dir, ignore_errors=True)
    output_dir.mkdir(parents=True)
    vocab_size = len((data / "vocab.txt").read_text(encoding="utf-8").split())
    config = {
        "vocab_size": vocab_size, "max_position_embeddings": 512, **_MODELS[settings["model"]],
        "hidden_dropout_prob": settings["dropout"], "attention_probs_dropout_prob": settings["dropout"],
    }  # fmt: skip
    (output_dir / "model.json").write_text(json.dumps(config))
    flags = {
        "num_warmup_steps": int(settings["warmup_share"] * updates), **flags,
        "bert_config_file": output_dir / "model.json", "output_dir": output_dir, "vocab_file": data / "vocab.txt",
        "input_files_dir": data / "train", "eval_files_dir": data / "eval", "num_train_steps": updates,
        "eval_batch_size": 64, "max_eval_steps": 0, "samples_start_eval": _SHORT, "samples_between_eval": examples // 4,
        "save_checkpoints_steps": updates, "stop_threshold": 0, "lr_scaling": "none", "intra_op_threads": 1,
        "peak_tflops": 1, "display_loss_steps": max(1, updates // 30), "seed": run.seed, "data_seed": run.seed,
    }  # fmt: skip
    command = [sys.executable, "-m", "bert_pretrain.run", "--do_train", "--do_eval", "--dynamic_masking"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    with open(output_dir / "log.txt", "w") as log:
        subprocess.run(command, cwd=_ROOT, check=True, stdout=log, stderr=log)
    found = json.loads((output_dir / "results.json").read_text())
    metrics = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    for path in output_dir.glob("model.ckpt-*"):
        path.unlink()
    shutil.rmtree(output_dir / "best", ignore_errors=True)
    return {
        **run._asdict(), "settings": settings, "examples": examples, "updates": updates,
        "accuracy": found["masked_lm_accuracy"], "loss": found["masked_lm_loss"],
        "next_sentence_accuracy": found["next_sentence_accuracy"],
        "curve": [
            [line["examples"], round(line["masked_lm_accuracy"], 4)]
            for line in metrics if line.get("kind") == "eval"
        ],
    }  # fmt: skip


def read_results(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of study.jsonl in the order of QUESTIONS; [] where there is no such file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    order = [(question, variant) for question, asked in QUESTIONS.items() for variant in asked.variants]
    return sorted(lines, key=lambda line: (order.index((line["question"], line["variant"])), line["seed"]))


def wanted_runs(questions: list[str], seeds: list[int], text: str, variants: list[str]) -> list[Run]:
    """The runs in the order of questions, seeds first, so that a stopped study has compared all variants once."""
    return [
        Run(question, variant, seed, text)
        for question in questions
        for seed in seeds
        for variant in QUESTIONS[question].variants
        if not variants or variant in variants
    ]


def _work(text: str, seed: int, examples: int, settings: dict[str, Any]) -> str:
    """What a run does. Questions share runs: the recipe's is a variant of most."""
    return json.dumps([text, seed, examples, settings], sort_keys=True)


def run_study(runs: list[Run], arguments: argparse.Namespace) -> None:
    """Trains what has no line in study.jsonl yet, and appends its line; the same work is not done twice."""
    path = pathlib.Path(arguments.results)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = read_results(path)
    done = {tuple(line[name] for name in Run._fields) for line in lines}
    same = {_work(line["text"], line["seed"], line["examples"], line["settings"]): line for line in lines}
    to_do = []
    with open(path, "a") as file:
        for run in runs:
            line = same.get(_work(run.text, run.seed, QUESTIONS[run.question].examples, settings_of(run)))
            if tuple(run) in done:
                continue
            if line:
                file.write(json.dumps({**line, **run._asdict()}) + "\n")
            else:
                to_do.append(run)
    print(f"{len(to_do)} runs, {len(runs) - len(to_do)} are done", flush=True)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            pool.submit(train, run, pathlib.Path(arguments.data), pathlib.Path(arguments.output_dir)): run
            for run in to_do
        }
        for future in concurrent.futures.as_completed(futures):
            line, run = future.result(), futures[future]
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{run.name}: accuracy {line['accuracy']:.4f}, loss {line['loss']:.4f}", flush=True)


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, of the runs of a question: a row for each variant, accuracy and loss in each text."""
    texts = _grouped(found, "text")
    columns = "".join(f" {text}: accuracy | loss |" for text in texts)
    lines = [f"| {found[0]['examples']:,} examples |{columns}", "|---|" + "---|---|" * len(texts)]
    for variant in _grouped(found, "variant"):
        cells = []
        for of_text in texts.values():
            runs = [run for run in of_text if run["variant"] == variant]
            accuracies = [run["accuracy"] for run in runs]
            cells.append(f"{statistics.mean(accuracies):.4f}" if runs else "")
            if len(runs) > 1:
                cells[-1] += f" ({len(runs)} seeds: {min(accuracies):.4f} to {max(accuracies):.4f})"
            cells.append(f"{statistics.mean(run['loss'] for run in runs):.4f}" if runs else "")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill_page(page: str, results: list[dict[str, Any]]) -> str:
    """The page with each table and picture between <!-- study: QUESTION --> and <!-- end --> made anew."""
    for question, found in _grouped(results, "question").items():
        mark = f"<!-- study: {question} -->"
        block = (
            f"{mark}\n\n{table(found)}\n\n![{QUESTIONS[question].title}]({_RESULTS.parent.name}/{_picture(question)})"
        )
        page = re.sub(f"{re.escape(mark)}.*?(?=\n\n<!-- end -->)", lambda _, block=block: block, page, flags=re.DOTALL)
    return page


def _picture(question: str) -> str:
    return f"{question.replace(' ', '_')}.svg"


def draw(results: list[dict[str, Any]], folder: pathlib.Path) -> None:
    """Writes one SVG for each question: a point for each run, a line for the variant's mean."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "study"  # the same results are the same bytes
    from matplotlib import pyplot

    for question, found in _grouped(results, "question").items():
        texts = _grouped(found, "text")
        variants = list(_grouped(found, "variant"))
        figure, grid = pyplot.subplots(
            1, len(texts), figsize=(2.6 + 3.4 * len(texts), 0.9 + 0.32 * len(variants)), squeeze=False, sharey=True
        )
        for axes, (text, of_text) in zip(grid[0], texts.items()):
            for place, variant in enumerate(variants):
                accuracies = [run["accuracy"] for run in of_text if run["variant"] == variant]
                if not accuracies:
                    continue
                mean = statistics.mean(accuracies)
                axes.hlines(place, 0, mean, color=_OTHERS, linewidth=6)
                axes.plot(accuracies, [place] * len(accuracies), "o", color=_OURS, markersize=4)
                axes.text(max(accuracies), place, f"  {mean:.3f}", va="center", fontsize=8, color=_INK)
            axes.set_yticks(range(len(variants)), variants, fontsize=8)
            axes.set_ylim(len(variants) - 0.5, -0.5)
            axes.set_title(f"{text}, {of_text[0]['examples']:,} examples", fontsize=9, loc="left", color=_INK)
            axes.margins(x=0.2)
            axes.set_xlim(left=0)
        figure.supxlabel("held-out masked-LM accuracy; a point is a run", fontsize=8, color=_INK)
        figure.tight_layout()
        figure.savefig(folder / _picture(question), metadata={"Date": None})
        pyplot.close(figure)


def _grouped(results: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in results:
        groups.setdefault(line[key], []).append(line)
    return groups


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default=",".join(QUESTIONS), help=f"Commas, of: {', '.join(QUESTIONS)}.")
    parser.add_argument("--variants", default="", help="Semicolons; default: all of a question.")
    parser.add_argument("--seeds", default="0", help="Commas.")
    parser.add_argument("--data", default=".cache/demo", help="Folder with train, eval and vocab.txt.")
    parser.add_argument("--text", default="demo", help="What the data are called in the results.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs at a time, one thread each.")
    parser.add_argument("--results", default=str(_RESULTS))
    parser.add_argument("--output_dir", default="results/benchmarks/study", help="Logs of the runs.")
    parser.add_argument(
        "--plot",
        action="store_true",
        help="Print the tables and draw the pictures, also in docs/recipes.md; run nothing.",
    )
    return parser.parse_args(values)


def main(values: list[str] | None = None) -> None:
    """The command."""
    arguments = _arguments(values)
    if not arguments.plot:
        variants = [variant for variant in arguments.variants.split(";") if variant]
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        run_study(wanted_runs(arguments.questions.split(","), seeds, arguments.text, variants), arguments)
        return
    results = read_results(pathlib.Path(arguments.results))
    for question, found in _grouped(results, "question").items():
        print(f"\n{QUESTIONS[question].title}\n\n{table(found)}")
    draw(results, pathlib.Path(arguments.results).parent)
    if pathlib.Path(arguments.results) == _RESULTS:
        _PAGE.write_text(fill_page(_PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
