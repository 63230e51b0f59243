"""The settings of `python -m bert_pretrain.make_data`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.languages import LANGUAGES, find_language
from bert_pretrain.config.option import MAX_PROCESSES, MAX_SEQ_LENGTH, option, require, require_numbers
from bert_pretrain.system.files import cache_directory

# The shortest sequence with a pair: [CLS] a [SEP] b [SEP].
_MIN_SEQ_LENGTH = 5
_MAX_SHARDS = 99_999  # their names have five digits


@dataclasses.dataclass(frozen=True)
class ExampleConfig:
    """Examples: names, defaults and meaning as in google-research/bert's script."""

    max_seq_length: int = option(128, "Tokens in a record.")
    max_predictions_per_seq: int = option(20, "Largest number of masked tokens in a record.")
    masked_lm_prob: float = option(0.15, "Share of the tokens that are masked.")
    short_seq_prob: float = option(0.1, "Share of document passes whose sequences are shorter than max_seq_length.")
    dupe_factor: int = option(10, "Passes over the text, each cut and masked differently.")
    random_seed: int = option(12345, "Seed of all random draws.")
    do_lower_case: bool = option(True, "Convert to lower case and remove accents, for uncased vocabularies.")
    do_whole_word_mask: bool = option(False, "Mask all pieces of a word, or none.")
    single_sequence: bool = option(
        False,
        "Make records of consecutive sentences of one document, [CLS] tokens [SEP], instead of sentence pairs, as "
        "RoBERTa's DOC-SENTENCES; for training with --next_sentence_weight=0.",
    )
    mode: str = option(
        "fast",
        "exact: the same records as google-research/bert's script; fast: the same distribution, other random numbers.",
        ("exact", "fast"),
        set_by_script=True,
    )
    num_picked_examples: int = option(
        0,
        "Keep at most this many examples of a shard, at equal distances, as MLPerf does for evaluation; 0 keeps all.",
        set_by_script=True,
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(
            _MIN_SEQ_LENGTH <= self.max_seq_length <= MAX_SEQ_LENGTH,
            f"--max_seq_length must be {_MIN_SEQ_LENGTH} to {MAX_SEQ_LENGTH}, got {self.max_seq_length}",
        )
        require(
            1 <= self.max_predictions_per_seq <= MAX_SEQ_LENGTH,
            f"--max_predictions_per_seq must be 1 to {MAX_SEQ_LENGTH}, got {self.max_predictions_per_seq}",
        )
        require(self.dupe_factor >= 1, f"--dupe_factor must be at least 1, got {self.dupe_factor}")
        for name in ("masked_lm_prob", "short_seq_prob"):
            require(0 <= getattr(self, name) <= 1, f"--{name} must be in [0, 1], got {getattr(self, name)}")
        require(
            self.num_picked_examples >= 0,
            f"--num_picked_examples must be at least 0, got {self.num_picked_examples}",
        )
        require(self.random_seed >= 0, f"--random_seed must be at least 0, got {self.random_seed}")
        require(
            not (self.single_sequence and self.mode == "exact"),
            "--single_sequence needs --mode=fast: exact mode writes the records of Google's script, which are pairs",
        )


@dataclasses.dataclass(frozen=True)
class MakeDataConfig:
    """Input, output and steps."""

    input_file: str = option(
        "",
        "Text files, one sentence a line and a blank line between documents, or folders of .txt files: names and "
        "patterns, separated by commas. A name that exists is neither a pattern nor a list, whatever it holds.",
        is_path=True,
        is_list=True,
        set_by_script=True,
    )
    output_file: str = option(
        "",
        "TFRecord files for the examples of all inputs, separated by commas; a name with commas that exists is one.",
        is_path=True,
        is_list=True,
        set_by_script=True,
    )
    output_dir: str = option(
        "",
        "Instead of --output_file: a directory for one TFRecord file for each input file, or for --num_shards files. "
        "With --make_text: for the text. With --demo: for the demo; default: demo in the cache folder, or "
        "demo_single_sequence with --single_sequence.",
        is_path=True,
        set_by_script=True,
    )
    num_shards: int = option(
        0,
        "Number of files in --output_dir; the text of all inputs is divided between documents. 0: one for each input. "
        "With --train_vocab: whether the text has documents enough for them is checked first.",
        set_by_script=True,
    )
    num_processes: int = option(
        0,
        "Processes on this machine; 0: one for each core. Under mpirun -np N there are N - 1 instead.",
        set_by_script=True,
    )
    vocab_file: str = option("", "WordPiece vocabulary, one entry a line.", is_path=True, set_by_script=True)
    train_vocab: bool = option(
        False, "Only train a vocabulary from the text and write it to --vocab_file.", set_by_script=True
    )
    vocab_size: int = option(30_522, "With --train_vocab: number of entries.")
    eval_input_file: Optional[str] = option(
        None,
        "With --train_vocab: text whose coverage is measured, names and patterns as in --input_file; default: the "
        "last 1 % of the text, which is held out.",
        is_path=True,
        is_list=True,
        set_by_script=True,
    )
    max_memory_gb: float = option(
        2.0,
        "Memory that a process may need, GB: bounds the distinct words of --train_vocab, and the text of a shard in "
        "exact mode.",
    )
    make_text: bool = option(
        False,
        "Only divide raw text into documents and sentences: --input_file names files, or folders that are searched "
        "deeply; --output_dir gets train/ and eval/ in the form that the other steps read.",
        set_by_script=True,
    )
    demo: bool = option(
        False,
        "Only make the embedded demo's vocabulary, model and shards, from text that every Python installation has.",
        set_by_script=True,
    )
    verbose_logging: bool = option(False, "Show tracebacks of errors.", set_by_script=True)

    def demo_dir(self, single_sequence: bool) -> str:
        """The directory of the demo's data, which have pairs or single sequences."""
        return self.output_dir or str(cache_directory("demo_single_sequence" if single_sequence else "demo"))

    def check(self) -> None:
        """ValueError for an invalid setting or combination of settings."""
        require_numbers(self)
        require(0 <= self.num_shards <= _MAX_SHARDS, f"--num_shards must be 0 to {_MAX_SHARDS}, got {self.num_shards}")
        require(
            0 <= self.num_processes <= MAX_PROCESSES,
            f"--num_processes must be 0 to {MAX_PROCESSES}, got {self.num_processes}",
        )
        require(self.max_memory_gb >= 0.6, f"--max_memory_gb must be at least 0.6, got {self.max_memory_gb}")
        require(self.vocab_size >= 1, f"--vocab_size must be at least 1, got {self.vocab_size}")
        only = [f"--{name}" for name in ("demo", "make_text", "train_vocab") if getattr(self, name)]
        require(len(only) <= 1, f"{' and '.join(only)} are separate steps; give one at a time")
        if self.demo:
            return
        require(bool(self.input_file), "--input_file is required, or --demo")
        if self.make_text:
            require(bool(self.output_dir), "--make_text needs --output_dir")
            return
        require(not self.eval_input_file or self.train_vocab, "--eval_input_file needs --train_vocab")
        require(bool(self.vocab_file), "--vocab_file is required; --train_vocab makes one")
        if self.train_vocab:
            return
        require(
            bool(self.output_file) != bool(self.output_dir),
            "give either --output_file, files for the examples of all inputs, or --output_dir, a file for each input",
        )
        require(not self.num_shards or bool(self.output_dir), "--num_shards needs --output_dir")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Raw text, with --make_text."""

    documents: str = option(
        "auto",
        "What a document is: a file, the text between blank lines, or each line's --text_column of JSON lines. auto "
        "looks at each file's first lines.",
        ("auto", "file", "blank_line", "jsonl"),
    )
    text_column: str = option("text", "Column of .parquet files, and key of JSON lines, that holds a document's text.")
    language: str = option(
        "auto",
        "Code of the text's language, such as de: its rules divide text into sentences, and its letters tell the "
        "encoding of text that is not UTF-8. auto: what the letters of each file tell, en for all in Latin letters.",
    )
    encoding: str = option(
        "auto",
        "Encoding of text that is not UTF-8 (or UTF-16 or UTF-32), such as cp1250. auto: the one in which text has the "
        "letters of --language, else what chardet detects.",
    )
    num_held_out: int = option(10_000, "Largest number of documents for eval/.", set_by_script=True)
    held_out: str = option(
        "by_size",
        "Which documents are held out. by_size: drawn over all files together, at most a tenth. mlperf: an equal "
        "number of each file by MLPerf's rule, without removal of duplicates.",
        ("by_size", "mlperf"),
        set_by_script=True,
    )
    keep_duplicates: bool = option(False, "Keep documents that equal or nearly equal an earlier one.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require(self.num_held_out >= 0, f"--num_held_out must be at least 0, got {self.num_held_out}")
        require(
            self.language == "auto" or find_language(self.language) is not None,
            f"--language={self.language} is not known; give auto, or the code of a language with similar sentences, "
            f"one of {', '.join(LANGUAGES)}",
        )
        require(
            self.encoding == "auto" or _is_text_encoding(self.encoding),
            f"--encoding={self.encoding} is no encoding that Python knows; give auto, or a name such as cp1250",
        )
        require(bool(self.text_column), "--text_column is empty; it names a column")


def _is_text_encoding(name: str) -> bool:
    try:
        b"text".decode(name, "replace")  # refuses what is no encoding of text, such as hex
    except (LookupError, ValueError):
        return False
    return True


PARTS = (MakeDataConfig, ExampleConfig, TextConfig)
