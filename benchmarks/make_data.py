"""make_data beside google-research/bert's script: the same text, vocabulary and flags, one process, one core.

    python -m benchmarks.make_data [--text=FILE] [--vocab_file=FILE] [--megabytes=8] [--repeats=3]

Text is the embedded demo's unless one is given; the vocabulary is trained from it unless one is given. A time is that
of a whole run less that of a run on two words (start-up, the same for any text), the best of the repeats. Tokenizing
is timed inside one process each. Prints a Markdown table; needs bert-tensorflow==1.0.4.

    python -m benchmarks.make_data --memory_mb=1024 [--limit_mb=2048]

measures instead the peak memory of exact and fast mode on a text of that size, the same text over and over, in one
process each that may not hold more data than the limit. With ten passes a shard takes 10 to 20 times the text on the
disk of $TMPDIR.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

REFERENCE = pathlib.Path(__file__).parents[1] / "tests" / "references" / "google_data.py"
SHAPES = ((128, 20), (512, 76))
# On one core each, and without threads: what is compared is the work, not the machine.
ENVIRON = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

TOKENIZE = """
import sys, time
kind, vocab_file, text_file = sys.argv[1:]
with open(text_file, encoding="utf-8") as file:
    lines = [line.strip() for line in file]
if kind == "google":
    from absl import flags
    from bert import tokenization
    flags.FLAGS(["tokenize"])
    tokenizer = tokenization.FullTokenizer(vocab_file)
    start = time.perf_counter()
    for line in lines:
        tokenizer.convert_tokens_to_ids(tokenizer.tokenize(line))
else:
    from bert_pretrain.data.vocab import load_vocabulary
    from bert_pretrain.make_data.tokenization import LineTokenizer
    tokenizer = LineTokenizer(load_vocabulary(vocab_file), lower_case=True)
    start = time.perf_counter()
    for first in range(0, len(lines), 20_000):
        tokenizer.encode(lines[first : first + 20_000])
print(time.perf_counter() - start)
"""

# The process says itself what its peak was: what its parent is told (ru_maxrss) counts the parent's memory too, which
# it shared until it became another program.
MEASURE = """
import resource, runpy, sys
limit, sys.argv = int(sys.argv[1]), sys.argv[2:]
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    with open("/proc/self/status") as file:
        print(next(line for line in file if line.startswith("VmHWM")))
"""


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        text, vocab_file = prepare(arguments, pathlib.Path(folder))
        if arguments.memory_mb:
            measure_memory(arguments, text, vocab_file, pathlib.Path(folder))
            return
        seconds = {"tokenizing": [tokenizing_seconds(kind, text, vocab_file, arguments.repeats) for kind in KINDS]}
        for shape in SHAPES:
            name = f"{shape[0]}/{shape[1]}, dupe_factor 10"
            seconds[name] = [
                whole_seconds(maker, text, vocab_file, shape, pathlib.Path(folder), arguments.repeats)
                for maker in (google, exact, fast)
            ]
        print_table(seconds, text.stat().st_size)


KINDS = ("google", "ours")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=os.path.expanduser)
    parser.add_argument("--vocab_file", type=os.path.expanduser)
    parser.add_argument("--megabytes", type=float, default=8.0, help="of text, at the most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_mb", type=int, help="measure peak memory on a text of so many MB instead")
    parser.add_argument("--limit_mb", type=int, default=2048, help="of data that a process may hold")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The text, cut to its size between documents, and the vocabulary."""
    from bert_pretrain.data import vocab
    from bert_pretrain.make_data import corpus, demo
    from bert_pretrain.make_data.vocabulary import training

    if arguments.text:
        documents = list(corpus.read_documents([corpus.whole_file(arguments.text)]))
    else:
        documents = demo.demo_documents()
    text, size = folder / "text.txt", 0
    kept = [d for d in documents if (size := size + sum(len(line) + 1 for line in d)) <= arguments.megabytes * 1e6]
    with text.open("w", encoding="utf-8", newline="\n") as file:
        corpus.write_documents(file, kept)
    if arguments.vocab_file:
        return text, pathlib.Path(arguments.vocab_file)
    lines = (line for document in kept for line in document)
    vocab.write_vocabulary(str(folder / "vocab.txt"), training.train_vocabulary(lines, 30_522, lower_case=True))
    return text, folder / "vocab.txt"


def google(flags: list[str]) -> list[str]:
    return [sys.executable, str(REFERENCE), *flags]


def exact(flags: list[str]) -> list[str]:
    return [sys.executable, "-m", "bert_pretrain.make_data", "--mode=exact", "--num_processes=1", *flags]


def fast(flags: list[str]) -> list[str]:
    return [sys.executable, "-m", "bert_pretrain.make_data", "--mode=fast", "--num_processes=1", *flags]


def whole_seconds(maker, text, vocab_file, shape, folder, repeats) -> float:
    two_words = folder / "two_words.txt"
    two_words.write_text("two words\n")
    runs = []
    for _ in range(repeats):
        whole, start_up = (run_seconds(maker, path, vocab_file, shape, folder) for path in (text, two_words))
        runs.append(whole - start_up)
    return min(runs)


def run_seconds(maker, text, vocab_file, shape, folder) -> float:
    command = maker(new_output(text, vocab_file, shape, folder))
    start = time.perf_counter()
    on_one_core(command)
    return time.perf_counter() - start


def new_output(text, vocab_file, shape, folder) -> list[str]:
    """The flags of a run, after what the last one left is removed."""
    output = folder / "examples.tfrecord"
    for path in (output, folder / "examples.tfrecord.json"):
        path.unlink(missing_ok=True)
    flags = [f"--input_file={text}", f"--output_file={output}", f"--vocab_file={vocab_file}", "--dupe_factor=10"]
    return [*flags, f"--max_seq_length={shape[0]}", f"--max_predictions_per_seq={shape[1]}"]


def tokenizing_seconds(kind, text, vocab_file, repeats) -> float:
    command = [sys.executable, "-c", TOKENIZE, kind, str(vocab_file), str(text)]
    return min(float(on_one_core(command).split()[-1]) for _ in range(repeats))


def on_one_core(command: list[str]) -> str:
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(["taskset", "-c", str(core), *command], capture_output=True, text=True, env=ENVIRON)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def measure_memory(arguments, text, vocab_file, folder) -> None:
    large = folder / "large.txt"
    repeat(text, large, arguments.memory_mb << 20)
    print(f"\n{large.stat().st_size >> 20} MB of text, data limited to {arguments.limit_mb} MB a process\n")
    print("| | peak resident memory, MB | seconds |")
    print("|---|---|---|")
    for shape in SHAPES:
        for maker in (exact, fast):
            _, _, *module_and_flags = maker(new_output(large, vocab_file, shape, folder))
            start = time.perf_counter()
            peak = peak_bytes(module_and_flags, arguments.limit_mb << 20)
            seconds = time.perf_counter() - start
            print(f"| {maker.__name__}, {shape[0]}/{shape[1]} | {peak >> 20} | {seconds:.0f} |", flush=True)


def repeat(text: pathlib.Path, large: pathlib.Path, num_bytes: int) -> None:
    """Writes the text again and again, a blank line between, until `num_bytes` are there."""
    with open(large, "wb") as file:
        while file.tell() < num_bytes:
            with open(text, "rb") as source:
                shutil.copyfileobj(source, file)
            file.write(b"\n")


def peak_bytes(module_and_flags: list[str], limit_bytes: int) -> int:
    """Largest resident memory of a module's run in a process that may hold so many bytes of data."""
    command = [sys.executable, "-c", MEASURE, str(limit_bytes), *module_and_flags]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRON)
    if done.returncode:
        sys.exit(f"{' '.join(module_and_flags)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-2]) << 10


def print_table(seconds: dict[str, list[float]], num_bytes: int) -> None:
    print(f"\n{num_bytes / 1e6:.1f} MB of text, one core, seconds without start-up (times Google's speed)\n")
    print("| | Google's script | exact | fast |")
    print("|---|---|---|---|")
    for name, (google, *ours) in seconds.items():
        cells = [f"{value:.2f} ({google / value:.1f}x)" for value in ours]
        print(f"| {name} | {google:.2f} | {' | '.join(cells if len(cells) == 2 else cells * 2)} |")


if __name__ == "__main__":
    main()
