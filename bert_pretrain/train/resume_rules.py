"""Which flags may change between the starts of one run, and what a change does.

docs/training.md has this table; python -m tests.train.test_resume_rules rewrites it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# A change is refused: flag -> reason.
REFUSED = {
    "seed": "a run has one seed; the other value would change its later dropout masks only",
    "data_seed": "the order of the records would change within an epoch: some would be read twice, others never",
    "optimizer_type": "the checkpoint holds the moments of the other optimizer",
    "lamb_beta_1": "with LAMB, beta1_power and the moments of the checkpoint belong to the other value",
    "lamb_beta_2": "with LAMB, beta2_power and the moments of the checkpoint belong to the other value",
}
# Refused with LAMB only: AdamW, as in google-research/bert, corrects no bias.
_OF_LAMB = ("lamb_beta_1", "lamb_beta_2")

_INVARIANT = "the same examples and, to rounding, the same sums, with other dropout masks"
_FIXED = "refused where it changes the number of micro-batches of an update under --rank_invariant"
_AT_ONCE = "applies from the next update on"
_MASKS = "applies to the masks that --dynamic_masking draws from the next update on"
_RATE = "the learning rate follows the new schedule from the next update on"
_BATCH = "the size of an update changes, or its division; a line says where the data continue"
_UNUSED = "without effect: the run continues its own checkpoint"
_CHECKED = "data and model are compared with those of the previous start, wherever they are"
_ROUNDING = "the same update, up to rounding"
_EVALUATION = "applies to the evaluations that follow"
_REPORTS = "changes what is written, not what is trained"
_MLPERF = "without effect: MLPerf's log of a run ends with its first start"
_HOSTS = "decides when a silent host ends the job, not what is trained"
_NONE = "without effect on a run"

# A change is allowed, and a line says what it does.
HARMLESS = {
    **dict.fromkeys(("lamb_weight_decay_rate", "log_epsilon", "clip_norm", "allreduce_fp16"), _AT_ONCE),
    **dict.fromkeys(("dynamic_masking", "vocab_file", "masked_lm_prob", "do_whole_word_mask"), _MASKS),
    "rank_invariant": _INVARIANT,
    "invariant_micro_batches": _FIXED,
    **dict.fromkeys(("learning_rate", "lr_scaling", "num_train_steps", "num_warmup_steps"), _RATE),
    **dict.fromkeys(("start_warmup_step", "poly_power"), _RATE),
    **dict.fromkeys(("train_batch_size", "num_accumulation_steps", "horovod"), _BATCH),
    **dict.fromkeys(("init_checkpoint", "init_optimizer_state", "allow_partial_init", "init_loss_scale"), _UNUSED),
    **dict.fromkeys(("input_files_dir", "bert_config_file", "skip_unreadable"), _CHECKED),
    **dict.fromkeys(("cache_dir", "cache_gb"), _NONE),
    **dict.fromkeys(("max_seq_length", "max_predictions_per_seq"), _CHECKED),
    **dict.fromkeys(("amp", "amp_dtype", "manual_fp16", "use_xla", "native_kernels", "recompute"), _ROUNDING),
    **dict.fromkeys(("pack_sequences", "intra_op_threads", "inter_op_threads", "exchange"), _ROUNDING),
    **dict.fromkeys(("do_train", "do_eval", "eval_files_dir", "eval_batch_size", "max_eval_steps"), _EVALUATION),
    **dict.fromkeys(("is_dist_eval_enabled", "samples_between_eval", "samples_start_eval"), _EVALUATION),
    **dict.fromkeys(("stop_threshold", "eval_checkpoint_path"), _EVALUATION),
    **dict.fromkeys(("output_dir", "local_output_dir", "save_checkpoints_steps", "keep_checkpoint_max"), _REPORTS),
    **dict.fromkeys(("max_failed_checkpoints", "save_summary_steps", "filled_sentences", "hf_dir"), _REPORTS),
    **dict.fromkeys(("display_loss_steps", "dllog_path", "report_loss", "verbose_logging"), _REPORTS),
    **dict.fromkeys(("peak_tflops", "enable_device_warmup", "profile_updates"), _REPORTS),
    **dict.fromkeys(("mlperf", "mlperf_division", "mlperf_submitter", "mlperf_platform", "mlperf_status"), _MLPERF),
    **dict.fromkeys(("verify_init", "init_accuracy"), _UNUSED),
    "heartbeat_seconds": _HOSTS,
    **dict.fromkeys(("allreduce_post_accumulation", "iterations_per_loop", "replay_update"), _NONE),
}
# Of bert_config.json, what is not part of a checkpoint's variables.
_HARMLESS_MODEL = {
    "hidden_dropout_prob": _AT_ONCE,
    "attention_probs_dropout_prob": _AT_ONCE,
    "initializer_range": _UNUSED,
}


class Change(NamedTuple):
    """A setting that differs from the previous start's."""

    name: str  # as the user knows it: --seed, model hidden_size
    before: Any
    now: Any
    effect: str  # or the reason of the refusal
    is_refused: bool
    remedy: str = "choose another directory, or start that run again with its own settings"


def changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """What differs between the contents of two run.json that both train."""
    yield from model_changes(previous, present)
    now = present["data"]["train"]["fingerprint"]
    before = previous["data"].get("train", {}).get("fingerprint", now)
    if before != now:
        reason = "the position in the data would mean other records"
        yield Change("train data", before, now, reason, is_refused=True)
    before, now = fixed_micro_batches(previous), fixed_micro_batches(present)
    if before and now and before != now:
        reason = "with --rank_invariant, dropout masks and sums belong to the micro-batches"
        remedy = f"give --invariant_micro_batches={before}, or another --output_dir"
        yield Change("micro-batches an update", before, now, reason, is_refused=True, remedy=remedy)
    yield from _flag_changes(previous["settings"], present["settings"])
    now = present["data"]["train"].get("vocabulary")
    before = previous["data"].get("train", {}).get("vocabulary", now)
    if None not in (before, now) and before != now:
        yield Change("vocabulary", before, now, _MASKS, is_refused=False)
    for name in ("device", "compute_dtype", "backend"):
        if previous.get(name) != present[name]:
            yield Change(name, previous.get(name), present[name], _ROUNDING, is_refused=False)
    for name, now in present["versions"].items():
        before = previous["versions"].get(name)
        if before != now:
            yield Change(f"version of {name}", before, now, _ROUNDING, is_refused=False)


def fixed_micro_batches(content: dict[str, Any]) -> int:
    """Micro-batches of an update over all ranks of a run.json with --rank_invariant; 0 without."""
    optim = content["settings"]["optim"]
    if not optim.get("rank_invariant"):
        return 0
    return optim["invariant_micro_batches"] or content["ranks"] * optim["num_accumulation_steps"]


def model_changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """What differs between the models of two run.json."""
    for name, now in present["model"].items():
        before = previous["model"].get(name)
        if before != now:
            effect = _HARMLESS_MODEL.get(name)
            reason = effect or "the checkpoint holds the other model"
            yield Change(f"model {name}", before, now, reason, is_refused=effect is None)


def _flag_changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """A flag that the previous start did not know is not a change."""
    for part in present:
        for name, now in present[part].items():
            before = previous.get(part, {}).get(name, now)
            if before == now:
                continue
            is_refused = name in REFUSED and not (name in _OF_LAMB and present["optim"]["optimizer_type"] != "lamb")
            effect = REFUSED[name] if is_refused else HARMLESS.get(name, _AT_ONCE)
            remedy = (
                f"give --{name}={before}, or another --output_dir with --init_checkpoint=CHECKPOINT of this run, "
                f"which starts a new run from its weights"
            )
            yield Change(f"--{name}", before, now, effect, is_refused, remedy)
