#!/usr/bin/env bash
# Makes the environment of each tested combination of TensorFlow and Python, and runs the demo and the tests in it.
#   bash scripts/run_matrix.sh [COMBINATION ...] [-- pytest arguments]
#   bash scripts/run_matrix.sh tf2.6.5-py3.8 tf2.21.0-py3.12 -- tests/kernels tests/optim
# Without COMBINATION: all of bert_pretrain/environment/versions.py. Prints a row of a table for each, and exits with 1
# if one of them failed. Environments, the demo's output and logs are in .cache/matrix. NO_DEMO=1 leaves the demo out.
# A Python that is not on PATH is looked for among pyenv's; a combination whose Python is missing is not run.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

run_steps "" "$@"
chosen=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do chosen+=("$1") && shift; done
if [ $# -gt 0 ]; then shift; fi
matrix="$BERT_PRETRAIN_CACHE/matrix"
mkdir -p "$matrix"

# Prints the program of Python $1, like 3.8.
find_python() {
  local program
  for program in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if "$program" -c 'import ensurepip' 2>/dev/null; then command -v "$program" && return; fi
  done
  return 1
}

# Prints the seconds and the two accuracies of the demo, trained in folder $1. Seconds include data and evaluation.
run_demo() {
  mkdir -p "$1"
  local begin="$SECONDS"
  (cd "$1" && bash "$project/scripts/run_1card_FPS.sh") >"$1/demo.log" 2>&1 || { echo "failed | | |" && return 1; }
  "$BERT_PRETRAIN_VENV/bin/python" - "$1/results/demo_1card/results.json" "$((SECONDS - begin))" <<'PROGRAM'
import json, sys
results = json.load(open(sys.argv[1]))
print(f"{sys.argv[2]} | {results['masked_lm_accuracy']:.4f} | {results['masked_lm_accuracy_rare']:.4f} |")
PROGRAM
}

# Runs combination $1 of TensorFlow $2 and Python $3, with pytest's other arguments, and prints its row.
run_combination() {
  local combination="$1" tensorflow="$2" version="$3" python demo="| | |" code=0
  local run="$matrix/$combination-$(date +%Y%m%d-%H%M%S)"
  shift 3
  doing "testing $combination"
  python="$(find_python "$version")" || { echo "| $combination | not run: no Python $version here | | | |" && return; }
  mkdir -p "$run"
  export BERT_PRETRAIN_VENV="$matrix/$combination"
  if ! bash "$project/init_tf.sh" "--python=$python" "--tensorflow=$tensorflow" --data --horovod --mlperf --plot \
    --storage --test >"$run/init.log" 2>&1; then
    echo "| $combination | the installation failed: $run/init.log | | | |" && return 1
  fi
  if [ "${NO_DEMO:-}" != 1 ]; then demo="$(run_demo "$run")" || code=1; fi
  bash "$project/scripts/run_tests.sh" "$@" >"$run/tests.log" 2>&1 || code=1
  echo "| $combination | $demo $(grep -E '^[0-9]+ (passed|failed|error).* in ' "$run/tests.log" || echo "none ran: $run/tests.log") |"
  return "$code"
}

echo "| combination | demo, seconds | masked LM accuracy | accuracy on rare tokens | tests |"
echo "|---|---|---|---|---|"
failed=0
while read -r combination tensorflow version _; do
  if [ ${#chosen[@]} -gt 0 ] && [[ " ${chosen[*]} " != *" $combination "* ]]; then continue; fi
  run_combination "$combination" "$tensorflow" "$version" "$@" </dev/null || failed=1
done < <(cd "$project" && PYTHONSAFEPATH='' python3 -m bert_pretrain.environment tested)
exit "$failed"
