# shellcheck shell=bash
# Sourced by init_tf.sh and by the scripts. Everything that they have in common; DRY_RUN=1 prints commands instead of
# running them.

# A stream that is closed is opened, so that no pipe gets its number.
{ : 9<&0; } 2>/dev/null || exec </dev/null
{ : 9>&1; } 2>/dev/null || exec >/dev/null
{ : 9>&2; } 2>/dev/null || exec 2>/dev/null

export PATH  # without one in the environment, the shell has its own, which programs need, too

project="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export BERT_PRETRAIN_PROJECT="$project"
export BERT_PRETRAIN_CACHE="${BERT_PRETRAIN_CACHE:-$project/.cache}"
# The current folder holds the user's text: no module there is Python's to import. Where the project's own folder is to
# be found as the current one, a command has PYTHONSAFEPATH= in front.
export PYTHONSAFEPATH=1

# The path $1 for commands that run in another folder.
absolute() { if [[ "$1" == /* ]]; then printf '%s\n' "$1"; else printf '%s\n' "$PWD/$1"; fi; }

# First in a script of several steps: run_steps DIRECTORY "$@". Starts the script again below bert_pretrain.system.script,
# which keeps other commands out of DIRECTORY (empty: it needs no lock) and ends the whole step at a signal; a script
# within a script has the outer one's. Any Python serves. Where there is none at all, and uv is to fetch it, the script
# goes on as it is.
run_steps() {
  if [ "${DRY_RUN:-}" = 1 ] || [ -n "${BERT_PRETRAIN_SCRIPT+set}" ]; then return; fi
  local name
  for name in "${BERT_PRETRAIN_VENV:-$project/.venv}/bin/python" python3 python python3.{13..8}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
      # The project's path is for this program alone: in PYTHONPATH, pip would take the project as installed.
      exec "$name" -c '
import sys
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
import runpy
runpy.run_module("bert_pretrain.system.script", run_name="__main__", alter_sys=True)
' "$project" "$1" bash "$0" "${@:2}"
    fi
  done
}

# Notes what the script does now, for the line that a signal ends it with.
doing() { if [ -n "${BERT_PRETRAIN_STAGE:-}" ]; then echo "$1" >&"$BERT_PRETRAIN_STAGE" || true; fi; }

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

# The same for a module of the project that prints its commands itself. Where no environment is there yet, it is printed.
launch_module() {
  if [ -x "$python" ]; then exec "$python" -m "$@"; else launch "$python" -m "$@"; fi
}

# The comment at the top of a script, its usage.
print_usage() { sed -n '2,/^[^#]/s/^#$\|^# //p' "$0"; }

# Ends the script with one line where this machine shows GPUs of which TensorFlow sees none.
require_gpus() {
  if [ "${DRY_RUN:-}" != 1 ]; then "$python" -m bert_pretrain.tensorflow_compat.visible_gpus; fi
}

# Makes the embedded demo's shards unless they exist, and sets $demo_flags.
prepare_demo() {
  local demo="$BERT_PRETRAIN_CACHE/demo"
  require_gpus
  doing "making the demo's shards"
  launch "$python" -m bert_pretrain.make_data --demo
  # shellcheck disable=SC2034  # read by the scripts
  demo_flags=(
    "--flagfile=$project/configs/run/demo.flags"
    "--input_files_dir=$demo/train" "--eval_files_dir=$demo/eval" "--bert_config_file=$demo/bert_config.json"
    "--vocab_file=$demo/vocab.txt"
  )
}

# For init_tf.sh and make_constraints.sh, whose stdout is for other programs.
say() { echo "$@" >&2 || true; }
run() { if [ "${DRY_RUN:-}" = 1 ]; then say "$(printf '%q ' "$@")"; else "$@" >&2; fi; }

# Sets $uv to the program uv, which any Python with pip can fetch from PyPI. Fails where there is none.
find_uv() {
  local tools="$project/.cache/uv"
  uv="$(command -v uv || true)"
  if [ -n "$uv" ]; then return 0; fi
  uv="$tools/bin/uv"
  if [ -x "$uv" ]; then return 0; fi
  python3 -I -c 'import ensurepip, venv' 2>/dev/null || return 1
  say "Fetching uv into .cache/uv"
  run python3 -I -m venv "$tools" && run "$tools/bin/pip" install --quiet --disable-pip-version-check \
    --require-hashes --requirement "$project/constraints/uv.txt"
}
