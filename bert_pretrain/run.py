"""python -m bert_pretrain.run: trains, evaluates, or both. --help lists the flags."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from bert_pretrain import cli
from bert_pretrain.config.export import ExportConfig, FillMaskConfig
from bert_pretrain.config.option import require
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.distributed.stop import Interrupted, StopRequest
from bert_pretrain.run_files import results
from bert_pretrain.system import files, processes, streams
from bert_pretrain.system.console import log
from bert_pretrain.tensorflow_compat import tensorflow_import


def _run(stop: StopRequest) -> int:
    """Reads the flags and starts the training loop. Returns the exit code."""
    parts = {name: cli.read_settings(part) for name, part in PARTS.items()}
    config = Config(**parts, explicit_flags=cli.explicit_flags(*PARTS.values()), flag_origins=cli.flag_origins())
    config.check()
    for line in processes.forget_schedulers():
        log.info(line)
    # TensorFlow is imported late: --help and invalid flags are answered at once.
    with tensorflow_import.imported_quickly():
        from bert_pretrain.distributed.connection import connected
        from bert_pretrain.tensorflow_compat.visible_gpus import visible_gpus
        from bert_pretrain.train import job, loop, replay

    if not config.run.horovod and config.device.device != "cpu":
        visible_gpus()  # before data are indexed; ranks agree on their findings later
    is_replay = bool(config.run.replay_update)  # in one process, whatever the number of ranks was
    try:
        run = config.run
        with connected(run.horovod and not is_replay, run.exchange, stop, run.heartbeat_seconds) as world:
            config = job.with_local_paths(config, world)
            if is_replay:
                code = replay.replay_update(config, world)
            else:
                code = loop.run_job(config, world, lambda run, is_new: _check_end(config, run, is_new))
            is_root = world.is_root
    except Interrupted:
        stop.print_end()
        return 0
    if is_root and not is_replay and config.run.do_train:
        _export_and_fill(config)
    return code


def _check_end(config: Config, run: dict[str, Any], is_new: bool) -> None:
    """ValueError for what _export_and_fill would fail at; run: what run.json will hold. Rank 0 calls it."""
    if not config.run.do_train:
        return
    hf_dir = config.run.hf_dir
    for name in ("tokenizers", "safetensors") if hf_dir else ():
        require(importlib.util.find_spec(name) is not None, f"--hf_dir needs {name}: bash init_tf.sh installs it")
    if hf_dir and (is_new or not _holds_files(hf_dir)):
        from bert_pretrain.export import writing

        writing.check_export(_export_config(config, hf_dir), run)
    if config.run.filled_sentences:
        from bert_pretrain.inference import answers

        try:
            answers.check_answers(_question(config), config.run.output_dir, run)
        except ValueError as error:
            raise ValueError(f"--filled_sentences: {error}") from None


def _holds_files(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.listdir(folder))


def _export_config(config: Config, hf_dir: str) -> ExportConfig:
    return ExportConfig(checkpoint=config.run.output_dir, vocab_file=config.masking.vocab_file, hf_dir=hf_dir)


def _question(config: Config) -> FillMaskConfig:
    return FillMaskConfig(
        held_out_shards=config.data.eval_files_dir,
        num_sentences=config.run.filled_sentences,
        vocab_file=config.masking.vocab_file,
    )


def _export_and_fill(config: Config) -> None:
    """After training: exports the model and fills in sentences, where the flags ask for it and no signal ended it.

    ValueError, one line, where the model cannot be exported. Sentences that cannot be filled in are only a note.
    """
    if not (config.run.hf_dir or config.run.filled_sentences) or not _is_finished(config.run.output_dir):
        return
    if config.run.hf_dir:
        _export(config, config.run.hf_dir)
    if config.run.filled_sentences:
        _fill_sentences(config)


def _is_finished(output_dir: str) -> bool:
    done = results.read_results(output_dir)
    return done is not None and done["end"] != results.INTERRUPTED


def _export(config: Config, hf_dir: str) -> None:
    from bert_pretrain.export import writing

    if _holds_files(hf_dir):
        log.info(f"note: --hf_dir: {hf_dir} is there already and is kept")
        return
    files.remove_partials(os.path.abspath(hf_dir))
    writing.export_model(_export_config(config, hf_dir))


def _fill_sentences(config: Config) -> None:
    from bert_pretrain.inference import answers

    try:
        for line in answers.answer_lines(_question(config), config.run.output_dir, []):
            log.info(line)
    except (ValueError, OSError) as error:
        log.info(f"note: --filled_sentences: {error}")


def main() -> None:
    """The command: parses the flags, runs and exits."""
    streams.secure_streams()  # before a pipe is made, which would get a closed stream's number
    rank = processes.launched_rank()
    stop_request = StopRequest(rank, processes.launched_size() or 1)
    with stop_request.listening():
        streams.prefix_rank(rank)
        cli.define_flags(*PARTS.values())
        cli.run_command(lambda: _run(stop_request), __doc__)


if __name__ == "__main__":
    main()
