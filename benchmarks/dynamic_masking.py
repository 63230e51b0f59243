"""Static and dynamic masks side by side: `python -m benchmarks.dynamic_masking --help`.

A small model is trained on a part of the embedded demo's text, with the same number of updates each time: on one pass
over the text with its static masks, on the same shards with --dynamic_masking, and on ten passes with static masks.
Each is evaluated on held-out documents, and on the one pass's records with their static masks, which shows what was
memorized. Prints a Markdown table; the directory keeps shards and runs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

from bert_pretrain.make_data import demo

_ROOT = pathlib.Path(__file__).parents[1]
_BATCH = 32
_HELD_OUT = 10  # every tenth document is the demo's held-out text


_MODEL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}


class Way(NamedTuple):
    """One way to mask."""

    name: str
    passes: int
    is_dynamic: bool


WAYS = (Way("static, one pass", 1, False), Way("dynamic, one pass", 1, True), Way("static, ten passes", 10, False))


def run(module: str, *flags: str) -> None:
    """Runs a module of the package; its output goes to stderr."""
    command = [sys.executable, "-m", f"bert_pretrain.{module}", *flags]
    subprocess.run(command, cwd=_ROOT, check=True, stdout=sys.stderr, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def make_shards(folder: pathlib.Path, num_documents: int) -> None:
    """Vocabulary and model, shards of one and of ten passes over a part of the demo's text, and of held-out text."""
    demo.make_demo(str(folder / "demo"))
    shape = json.loads((folder / "demo" / "bert_config.json").read_text())
    (folder / "model.json").write_text(json.dumps({**shape, **_MODEL}))
    documents = demo.demo_documents()
    held_out = documents[_HELD_OUT - 1 :: _HELD_OUT]
    training = [text for number, text in enumerate(documents) if number % _HELD_OUT != _HELD_OUT - 1]
    training = training[:: max(1, len(training) // num_documents)][:num_documents]
    for name, part, passes in (
        ("held-out", held_out[:num_documents], 1),
        *((f"passes-{passes}", training, passes) for passes in sorted({way.passes for way in WAYS})),
    ):
        text = folder / f"{name}.txt"
        text.write_text("\n\n".join("\n".join(sentences) for sentences in part) + "\n")
        run(
            "make_data", f"--input_file={text}", f"--vocab_file={folder}/demo/vocab.txt", "--num_shards=1",
            f"--dupe_factor={passes}", f"--output_dir={folder}/{name}", "--num_processes=1",
            "--max_seq_length=64", "--max_predictions_per_seq=10",
        )  # fmt: skip


def train(folder: pathlib.Path, way: Way, arguments: argparse.Namespace) -> list[str]:
    """Trains and evaluates one way; returns its row of the table."""
    output_dir = folder / way.name.replace(", ", "-").replace(" ", "-")
    model = [f"--bert_config_file={folder}/model.json", "--eval_batch_size=64", "--max_eval_steps=0"]
    masking = ["--dynamic_masking", f"--vocab_file={folder}/demo/vocab.txt"] if way.is_dynamic else []
    run(
        "run", *model, *masking, "--do_train", "--do_eval", f"--input_files_dir={folder}/passes-{way.passes}",
        f"--eval_files_dir={folder}/held-out", f"--output_dir={output_dir}", f"--train_batch_size={_BATCH}",
        "--optimizer_type=lamb", "--learning_rate=1e-2", f"--num_train_steps={arguments.updates}",
        "--num_warmup_steps=50", f"--samples_start_eval={10**9}", "--display_loss_steps=50", "--stop_threshold=0",
        f"--seed={arguments.seed}", f"--data_seed={arguments.seed}",
    )  # fmt: skip
    held_out = json.loads((output_dir / "results.json").read_text())
    run(
        "run", *model, "--do_eval", f"--eval_files_dir={folder}/passes-1", f"--output_dir={output_dir}-trained",
        f"--eval_checkpoint_path={output_dir}/model.ckpt-{arguments.updates}",
    )  # fmt: skip
    trained = json.loads(pathlib.Path(f"{output_dir}-trained", "results.json").read_text())
    records = json.loads((output_dir / "run.json").read_text())["data"]["train"]["records"]
    names = ("masked_lm_accuracy", "masked_lm_loss")
    found = [f"{results[name]:.4f}" for results in (trained, held_out) for name in names]
    visits = arguments.updates * _BATCH / records
    return [way.name, f"{records:,}", f"{visits:.1f}", *found, f"{held_out['examples_per_second']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=600, help=f"of {_BATCH} examples")
    parser.add_argument("--documents", type=int, default=60, help="of the demo's text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=pathlib.Path, default=_ROOT / "results" / "dynamic_masking")
    arguments = parser.parse_args()
    folder = arguments.directory.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    make_shards(folder, arguments.documents)
    print("| masks | records | visits of each | acc, trained records | loss | acc, held out | loss | examples/s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for way in WAYS:
        print(f"| {' | '.join(train(folder, way, arguments))} |", flush=True)


if __name__ == "__main__":
    main()
