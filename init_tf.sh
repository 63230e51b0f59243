#!/usr/bin/env bash
# Sets the Python environment up. Takes a second when nothing is left to do.
#
#   bash init_tf.sh [--data] [--horovod] [--interop] [--mlperf] [--plot] [--storage] [--test]
#                    [--tensorflow=2.15.1] [--python=python3.11]
#
# A TensorFlow of the active environment that drives GPUs or comes from a vendor (CUDA, IXUCA) is kept, in any version
# from 2.6 to 2.21, and the rest is installed beside it. Otherwise everything goes into .venv in the project, with the
# newest tested TensorFlow for the Python that is found; bert_pretrain/environment/versions.py lists them.
# --tensorflow asks for another. It is remembered; a .venv with another TensorFlow is made anew.
# --python names the program that makes .venv, instead of the first of python3, python, python3.13 ... python3.8 that
# can have the TensorFlow.
# Files of packages are compared with constraints/hashes.txt; BERT_PRETRAIN_HASHES=0 is for an index with other builds.
# It ends by saying what training has here (GPUs, XLA, NCCL, MPI) and what is missing; the same command says it again.
# BERT_PRETRAIN_VENV names another folder than .venv. DRY_RUN=1 prints the commands. --print-python ends with the path of
# the environment's Python on stdout, for the scripts.
set -euo pipefail
# shellcheck source=scripts/_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/scripts/_launch.sh"
run_steps "" "$@"
venv="$(absolute "${BERT_PRETRAIN_VENV:-$project/.venv}")"
python="$venv/bin/python"

# Runs a verb of bert_pretrain.environment with python $1. Each answers for that Python and its environment.
environment() {
  (CDPATH='' cd -- "$project" && PYTHONSAFEPATH='' "$1" -m bert_pretrain.environment "$2" "${3:-}" "$tensorflow")
}
# Whether python $1 starts, which pyenv's names on PATH need not, and can have the requested TensorFlow.
fits() { environment "$1" fits 2>/dev/null; }

extras="" tensorflow="" maker="" print_python=0
while [ $# -gt 0 ]; do
  case "$1" in
    --data | --horovod | --interop | --mlperf | --plot | --storage | --test) extras+=",${1#--}" ;;
    --tensorflow=*) tensorflow="${1#*=}" ;;
    --python=*) maker="${1#*=}" ;;
    --print-python) print_python=1 ;;
    -h | --help) print_usage && exit 0 ;;
    *) say "error: init_tf.sh does not know $1; bash init_tf.sh --help" && exit 2 ;;
  esac
  shift
done

# The names of Pythons that may make .venv, in order.
candidates=(python3 python python3.13 python3.12 python3.11 python3.10 python3.9 python3.8)
if [ -n "$maker" ]; then candidates=("$maker"); fi
if [[ "$maker" == */* ]]; then candidates=("$(absolute "$maker")"); fi

# Sets $newest to the newest Python for the requested TensorFlow, and $reason to why none of the candidates serves.
# Exits where the requested TensorFlow is not supported at all.
explain() {
  local name answer code
  newest=3.12 reason="no Python 3.8 to 3.13 was found: install python3.12 with its venv module, then run this again"
  for name in "${candidates[@]}"; do
    code=0
    answer="$(environment "$name" explain 2>&1)" || code=$?
    if [ "$code" = 2 ]; then say "$answer" && exit 2; fi
    if [ "$code" = 0 ]; then
      newest="${answer%%$'\n'*}" reason="${answer#*$'\n'}"
      return
    fi
  done
}

# The active environment's python if it is a supported one, unless the environment is .venv.
active_python() {
  local name answer
  for name in python python3; do
    if tensorflow="" fits "$name"; then
      answer="$("$name" -c 'import sys; print(sys.prefix, sys.executable, sep="\n")')"
      if ! [ "${answer%%$'\n'*}" -ef "$venv" ]; then echo "${answer#*$'\n'}"; fi
      return
    fi
  done
}

# Makes .venv; with --clear anew.
create_venv() {
  local name base without_venv=""
  for name in "${candidates[@]}"; do
    fits "$name" || continue
    base="$name"
    if [ $# -gt 0 ]; then # the name may be that of .venv's own Python, which cannot make it anew
      base="$("$name" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')"
    fi
    if "$base" -I -c 'import ensurepip, venv' 2>/dev/null; then
      say "Creating ${venv##*/} with $("$base" --version)"
      run "$base" -I -m venv "$@" "$venv"
      return
    fi
    without_venv="${without_venv:-$name}"
  done
  explain
  if [ -n "$without_venv" ]; then
    reason="$without_venv lacks its venv module; on Debian and Ubuntu: apt-get install $without_venv-venv"
  fi
  if [ -z "$maker" ] && find_uv; then
    say "Creating ${venv##*/} with ${without_venv:-Python $newest} by uv"
    run "$uv" venv --quiet "$@" --seed --python "${without_venv:-$newest}" "$venv" && return
  fi
  say "error: $reason"
  exit 1
}

finish() {
  if [ "$print_python" = 1 ]; then echo "$1" && exit 0; fi
  if [ "${DRY_RUN:-}" != 1 ]; then environment "$1" report || true; fi
  say "Ready: $1"
  exit 0
}

if [ -n "$tensorflow" ]; then explain; fi
active="" made=0
if [ -z "$maker${BERT_PRETRAIN_VENV:-}" ]; then active="$(active_python)"; fi
if [ -n "$active" ] && environment "$active" ready "$extras"; then finish "$active"; fi
if [ "$print_python" = 1 ] && [ -x "$python" ] && environment "$python" ready "$extras"; then finish "$python"; fi
if [ -n "$active" ] && environment "$active" suitable; then
  say "Keeping the TensorFlow of $active"
  python="$active"
elif ! "$python" -I -c 'import pip' 2>/dev/null; then
  create_venv && made=1
elif before="$(environment "$python" changed)"; then
  extras+=",$before"
  create_venv --clear && made=1
fi
if [ "${DRY_RUN:-}$made" = 11 ]; then
  run "$python" -m bert_pretrain.environment install "$extras" "$tensorflow"
else
  environment "$python" install "$extras"
fi
finish "$python"
