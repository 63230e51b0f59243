"""python -m bert_pretrain.run: trains, evaluates, or both. --help lists the flags."""

from __future__ import annotations

from bert_pretrain import after_training, cli
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.distributed.stop import Interrupted, StopRequest
from bert_pretrain.system import processes, stderr
from bert_pretrain.tensorflow_compat import tensorflow_import


def _run(stop: StopRequest) -> int:
    """Reads the flags and starts the training loop. Returns the exit code."""
    config = Config(**{name: cli.read(part) for name, part in PARTS.items()})
    given = set().union(*(cli.given(part) for part in PARTS.values()))
    config.check()
    for line in processes.forget_schedulers():
        print(line, flush=True)
    # TensorFlow is imported late: --help and invalid flags are answered at once.
    with tensorflow_import.imported_quickly():
        from bert_pretrain.distributed.connection import connected
        from bert_pretrain.train import job, loop, replay

    is_replay = bool(config.run.replay_update)  # in one process, whatever the number of ranks was
    try:
        run = config.run
        with connected(run.horovod and not is_replay, run.exchange, stop, run.heartbeat_seconds) as world:
            config = job.with_local_paths(config, world)
            code = (replay.replay_update if is_replay else loop.run)(config, given, world)
            is_root = world.is_root
    except Interrupted:
        stop.print_end()
        return 0
    if is_root and not is_replay and config.run.do_train:
        after_training.conclude(config)
    return code


def main() -> None:
    """The command: parses the flags, runs and exits."""
    rank = processes.launched_rank()
    stop_request = StopRequest(rank, processes.launched_size() or 1)
    with stop_request.listening():
        stderr.prefix(rank)
        cli.define(*PARTS.values())
        cli.main(lambda: _run(stop_request), __doc__)


if __name__ == "__main__":
    main()
