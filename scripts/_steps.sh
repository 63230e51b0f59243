# shellcheck shell=bash
# Sourced by _launch.sh and init_tf.sh, which set $project. Defines run_steps and doing.

# First in a script of several steps: run_steps DIRECTORY "$@". Starts the script again below bert_pretrain.system.script, which
# keeps other commands out of DIRECTORY (empty: it needs no lock) and ends the whole step at a signal. Any Python serves.
# Where there is none at all, and uv is to fetch it, the script goes on as it is.
run_steps() {
  if [ "${DRY_RUN:-}" = 1 ] || [ "${BERT_PRETRAIN_SCRIPT:-}" = "$PPID" ]; then return; fi
  local name
  for name in "${BERT_PRETRAIN_VENV:-$project/.venv}/bin/python" python3 python python3.{13..8}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
      # The project's path is for this program alone: in PYTHONPATH, pip would take the project as installed.
      exec "$name" -c '
import runpy, sys
sys.path[0] = sys.argv.pop(1)
runpy.run_module("bert_pretrain.system.script", run_name="__main__", alter_sys=True)
' "$project" "$1" bash "$0" "${@:2}"
    fi
  done
}

# Notes what the script does now, for the line that a signal ends it with.
doing() { if [ -n "${BERT_PRETRAIN_STAGE:-}" ]; then echo "$1" >&"$BERT_PRETRAIN_STAGE" || true; fi; }
