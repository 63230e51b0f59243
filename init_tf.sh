#!/usr/bin/env bash
# Sets the Python environment up; quick when nothing is left to do.
#
#   bash init_tf.sh [--data] [--horovod] [--interop] [--mlperf] [--plot] [--test]
#
# A TensorFlow 2.15 of the active environment that drives cards (CUDA, IXUCA) is kept and only the rest is added to it;
# otherwise everything goes into .venv in the project. DRY_RUN=1 prints the commands instead. --print-python ends with
# the path of the environment's python on stdout, for the scripts.
set -euo pipefail
project="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$project/.venv"
export BERT_PRETRAIN_CACHE="${BERT_PRETRAIN_CACHE:-$project/.cache}" # the same default as in scripts/_launch.sh

say() { echo "$@" >&2; }
run() { if [ "${DRY_RUN:-}" = 1 ]; then say "$(printf '%q ' "$@")"; else "$@" >&2; fi; }
# Answers questions about the environment of python $1, and installs into it.
environment() { "$1" "$project/bert_pretrain/environment.py" "${@:2}"; }
# True for a Python 3.9, 3.10 or 3.11 that starts; pyenv leaves names on PATH that do not.
fits() { "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' 2>/dev/null; }

extras="" print_python=0
while [ $# -gt 0 ]; do
  case "$1" in
    --data | --horovod | --interop | --mlperf | --plot | --test) extras+=",${1#--}" ;;
    --print-python) print_python=1 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) say "error: init_tf.sh does not know $1; bash init_tf.sh --help" && exit 2 ;;
  esac
  shift
done

# The active environment's python, unless the environment is .venv.
active_python() {
  local name answer
  for name in python python3; do
    if fits "$name"; then
      answer="$("$name" -c 'import sys; print(sys.prefix, sys.executable, sep="\n")')"
      if ! [ "${answer%%$'\n'*}" -ef "$venv" ]; then echo "${answer#*$'\n'}"; fi
      return
    fi
  done
}

create_venv() {
  local name without_venv=""
  for name in python3.11 python3.10 python3.9 python3 python; do
    fits "$name" || continue
    if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      say "Creating .venv with $("$name" --version)"
      run "$name" -m venv "$venv"
      return
    fi
    without_venv="${without_venv:-$name}"
  done
  if find_uv; then
    say "Creating .venv with ${without_venv:-Python 3.11} by uv"
    run "$uv" venv --quiet --seed --python "${without_venv:-3.11}" "$venv" && return
  fi
  if [ -n "$without_venv" ]; then
    say "error: $without_venv lacks its venv module; on Debian and Ubuntu: apt-get install $without_venv-venv"
  else
    say "error: TensorFlow 2.15 needs Python 3.9, 3.10 or 3.11; none was found, and no uv that could bring one." \
      "Install python3.11 with its venv module, then run this again."
  fi
  exit 1
}

# Sets uv. Any Python with pip can fetch it from PyPI.
find_uv() {
  local tools="$project/.cache/uv"
  uv="$(command -v uv || true)"
  if [ -n "$uv" ]; then return 0; fi
  uv="$tools/bin/uv"
  if [ -x "$uv" ]; then return 0; fi
  python3 -c 'import ensurepip, venv' 2>/dev/null || return 1
  say "No Python 3.9, 3.10 or 3.11 that can be used was found; fetching uv, which can bring one"
  run python3 -m venv "$tools" && run "$tools/bin/pip" install --quiet --disable-pip-version-check uv
}

finish() {
  if [ "$print_python" = 1 ]; then echo "$1"; else say "Ready: $1"; fi
  exit 0
}

active="$(active_python)"
if [ -n "$active" ] && environment "$active" ready "$extras"; then finish "$active"; fi
if [ "$print_python" = 1 ] && fits "$venv/bin/python" && environment "$venv/bin/python" ready "$extras"; then
  finish "$venv/bin/python"
fi
python="$venv/bin/python"
if [ -n "$active" ] && environment "$active" suitable; then
  say "Keeping the TensorFlow of $active"
  python="$active"
elif ! "$python" -c 'import pip' 2>/dev/null; then
  create_venv
fi
if [ -x "$python" ]; then
  environment "$python" install "$extras"
else
  run "$python" "$project/bert_pretrain/environment.py" install "$extras"
fi
finish "$python"
