"""python -m bert_pretrain.run: trains, evaluates, or both. --help lists the flags."""

from __future__ import annotations

import os

from bert_pretrain import cli
from bert_pretrain.config.export import ExportConfig, FillMaskConfig
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
        from bert_pretrain.train import job, loop, replay

    is_replay = bool(config.run.replay_update)  # in one process, whatever the number of ranks was
    try:
        run = config.run
        with connected(run.horovod and not is_replay, run.exchange, stop, run.heartbeat_seconds) as world:
            config = job.with_local_paths(config, world)
            code = (replay.replay_update if is_replay else loop.run_job)(config, world)
            is_root = world.is_root
    except Interrupted:
        stop.print_end()
        return 0
    if is_root and not is_replay and config.run.do_train:
        _export_and_fill(config)
    return code


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

    if os.path.isdir(hf_dir) and os.listdir(hf_dir):
        log.info(f"note: --hf_dir: {hf_dir} is there already and is kept")
        return
    files.remove_partials(os.path.abspath(hf_dir))
    writing.export_model(
        ExportConfig(checkpoint=config.run.output_dir, vocab_file=config.masking.vocab_file, hf_dir=hf_dir)
    )


def _fill_sentences(config: Config) -> None:
    from bert_pretrain.inference import answers

    question = FillMaskConfig(
        held_out_shards=config.data.eval_files_dir,
        num_sentences=config.run.filled_sentences,
        vocab_file=config.masking.vocab_file,
    )
    try:
        for line in answers.answer_lines(question, config.run.output_dir, []):
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
