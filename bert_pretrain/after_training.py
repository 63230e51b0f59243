"""What follows a finished training run in the same process: --hf_dir and --filled_sentences."""

from __future__ import annotations

import os

from bert_pretrain.config.export import ExportConfig
from bert_pretrain.config.fill_mask import FillMaskConfig
from bert_pretrain.config.training import Config
from bert_pretrain.system import files


def conclude(config: Config) -> None:
    """Exports the model and fills in sentences, where the flags ask for it and the run was not interrupted.

    ValueError, one line, where the model cannot be exported. Sentences that cannot be filled in are only a note.
    """
    if not (config.run.hf_dir or config.run.filled_sentences) or not _is_finished(config.run.output_dir):
        return
    if config.run.hf_dir:
        _export(config)
    if config.run.filled_sentences:
        _fill_sentences(config)


def _is_finished(output_dir: str) -> bool:
    from bert_pretrain.run_files import results  # TensorFlow is imported late, here as in run.py

    done = results.read_results(output_dir)
    return done is not None and done["end"] != results.INTERRUPTED


def _export(config: Config) -> None:
    from bert_pretrain.export import writing

    hf_dir = config.run.hf_dir
    if os.path.isdir(hf_dir) and os.listdir(hf_dir):
        print(f"note: --hf_dir: {hf_dir} is there already and is kept", flush=True)
        return
    files.remove_partials(os.path.abspath(hf_dir))
    writing.export(ExportConfig(checkpoint=config.run.output_dir, vocab_file=config.masking.vocab_file, hf_dir=hf_dir))


def _fill_sentences(config: Config) -> None:
    from bert_pretrain.inference import answers

    question = FillMaskConfig(
        held_out_shards=config.data.eval_files_dir,
        num_sentences=config.run.filled_sentences,
        vocab_file=config.masking.vocab_file,
    )
    try:
        for line in answers.lines(question, config.run.output_dir, []):
            print(line, flush=True)
    except (ValueError, OSError) as error:
        print(f"note: --filled_sentences: {error}", flush=True)
