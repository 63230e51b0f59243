"""Flags of the programs that this one replaces, and of its earlier versions, which it does not have.

The programs: run_pretraining.py, create_pretraining_data.py and extract_features.py of google-research/bert, and their
descendants in NVIDIA's DeepLearningExamples, MLPerf's reference, Habana's Model-References, DeepSparkHub and
tensorflow/models. Flags that are accepted without effect have an option() with no_effect instead.
"""

from __future__ import annotations

_TPU = "it concerns TPUs, and this program trains on GPUs and CPUs; leave it out"
_RANKS = "bash scripts/run_multi_card_FPS.sh starts a process per GPU, NP=8 as many as it says (docs/many_gpus.md)"
_HALF = "give --amp, and --amp_dtype=float16 or bfloat16"
_SHARDS = "bert_pretrain.run reads all shards of a directory: give --input_files_dir=DIR"
_STEPS = "training is counted in updates: give --num_train_steps"
_FINE_TUNING = "this program pretrains; python -m bert_pretrain.export --hf_dir=DIR writes the model for fine-tuning"
_FEATURES = "python -m bert_pretrain.export --saved_model_dir=DIR writes a model that returns the features of a text"
_MLPERF = "BERT left MLPerf Training with v5.0, and results are not submitted any more; leave it out"
_ONE_FORMAT = "records have the names and the form of Google's first version; leave it out"

# Name -> what takes its place, or why it is not needed.
RETIRED_FLAGS = {
    **dict.fromkeys(("use_tpu", "tpu", "tpu_name", "tpu_zone", "tpu_job_name", "gcp_project", "master"), _TPU),
    **dict.fromkeys(("num_tpu_cores", "use_one_hot_embeddings", "num_tpu_shards"), _TPU),
    **dict.fromkeys(("num_gpus", "use_horovod", "distribution_strategy", "worker_hosts", "task_index"), _RANKS),
    **dict.fromkeys(("use_fp16", "fp16", "fp16_implementation", "dtype", "bf16_config_path", "use_bf16"), _HALF),
    "loss_scale": "the scale of float16 is dynamic: --init_loss_scale is its first value",
    "optimizer": "give --optimizer_type=lamb, adamw or adam; adam is AdamW as in google-research/bert",
    "steps_per_update": "give --num_accumulation_steps",
    "gradient_accumulation_steps": "give --num_accumulation_steps",
    "clip_by_global_norm_after_gradient_allreduce": "that is how gradients are clipped here; leave it out",
    "all_reduce_alg": "Horovod or MPI chooses how it sums; leave it out, or give --exchange",
    "num_packs": "gradients are summed in one exchange; leave it out",
    "enable_scoped_allocator": "gradients are summed in one exchange; leave it out",
    "warmup_steps": "give --num_warmup_steps",
    "warmup_proportion": "give --num_warmup_steps, a number of updates",
    "end_lr": "the learning rate falls to 0; leave it out",
    **dict.fromkeys(("num_train_epochs", "num_steps_per_epoch", "max_steps", "train_steps"), _STEPS),
    **dict.fromkeys(("steps_per_loop", "num_steps_per_loop"), "each session.run is one update; leave it out"),
    **dict.fromkeys(("input_file", "input_files", "train_files", "train_input_files"), _SHARDS),
    **dict.fromkeys(
        ("eval_file", "eval_files", "eval_input_files"), "give --eval_files_dir=DIR, the evaluation shards"
    ),
    "eval_dir": "--eval_files_dir=DIR names the evaluation shards; results are written to --output_dir",
    "model_dir": "give --output_dir",
    "log_dir": "everything is written to --output_dir; leave it out",
    "save_checkpoint_steps": "give --save_checkpoints_steps",
    "checkpoint": "give --init_checkpoint, or --eval_checkpoint_path for an evaluation alone",
    "train_summary_interval": "give --save_summary_steps",
    "num_report_steps": "give --display_loss_steps",
    "log_steps": "give --display_loss_steps",
    "log_freq": "give --display_loss_steps",
    "profile": "give --profile_updates=N",
    "enable_xla": "give --use_xla, which is the default",
    "run_eagerly": "training runs as a graph; leave it out",
    "resume": "a run that is found in --output_dir goes on by itself; leave it out",
    "deterministic_run": "--seed and --data_seed decide a run, --rank_invariant on any number of ranks; leave it out",
    "export_dir": "python -m bert_pretrain.export --saved_model_dir=DIR writes a SavedModel after training",
    "model_export_path": "python -m bert_pretrain.export --saved_model_dir=DIR writes a SavedModel after training",
    "hub_module_url": "give the module's folder as --init_checkpoint",
    **dict.fromkeys(("task_name", "data_dir", "do_predict", "predict_file", "predict_batch_size"), _FINE_TUNING),
    **dict.fromkeys(("layers", "batch_size"), _FEATURES),
    # create_pretraining_data.py
    **dict.fromkeys(("gzip_compress", "use_v2_feature_names"), _ONE_FORMAT),
    "max_ngram_size": "spans are not masked; --do_whole_word_mask masks whole words",
    "do_permutation": "there is no such objective; leave it out",
    "spm_model_file": "the vocabulary is WordPiece's: give --vocab_file",
    "n_processes": "give --num_processes",
    "n_training_shards": "give --num_shards",
    # Of earlier versions of this program.
    **dict.fromkeys(("mlperf_submitter", "mlperf_platform", "mlperf_status"), _MLPERF),
}
