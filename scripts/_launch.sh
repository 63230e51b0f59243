# shellcheck shell=bash
# Sourced by the scripts beside it. Defines $project, use_environment, run_steps, doing, launch, launch_last and
# prepare_demo.
# DRY_RUN=1 prints the commands instead of running them.
project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export BERT_PRETRAIN_CACHE="${BERT_PRETRAIN_CACHE:-$project/.cache}" # the same default as in init_tf.sh

# shellcheck source-path=SCRIPTDIR source=_steps.sh
. "$project/scripts/_steps.sh"

# Sets $python to the Python of an environment with the given extras (--test, --horovod, ...). Installs what is missing.
use_environment() {
  doing "setting the environment up"
  python="$(bash "$project/init_tf.sh" --print-python "$@")"
}

launch() {
  if [ "${DRY_RUN:-}" = 1 ]; then
    printf '%q ' "$@" | sed 's/ $//' && echo
  else
    "$@"
  fi
}

# For the last command of a script. It replaces the script's process, so that signals and the exit code are its own.
launch_last() {
  if [ "${DRY_RUN:-}" = 1 ]; then launch "$@"; else exec "$@"; fi
}

# Makes the embedded demo's shards unless they exist, and sets $demo_flags.
prepare_demo() {
  local demo="$BERT_PRETRAIN_CACHE/demo"
  doing "making the demo's shards"
  launch "$python" -m bert_pretrain.make_data --demo
  # shellcheck disable=SC2034  # read by the scripts
  demo_flags=(
    "--flagfile=$project/configs/run/demo.flags"
    "--input_files_dir=$demo/train" "--eval_files_dir=$demo/eval" "--bert_config_file=$demo/bert_config.json"
  )
}
