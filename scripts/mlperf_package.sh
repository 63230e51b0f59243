#!/usr/bin/env bash
# Makes the package of an MLPerf submission from ten runs with --mlperf, and has mlperf_logging check it.
#   bash scripts/mlperf_package.sh PACKAGE SYSTEM RUN_DIR RUN_DIR ...
# PACKAGE   folder for systems/SYSTEM.json, results/SYSTEM/bert/result_0.txt to result_9.txt, and
#           benchmarks/bert/implementations/bert_pretrain, the code with the settings of the first run
# SYSTEM    the system's name
# RUN_DIR   --output_dir of a run; ten of them
# systems/SYSTEM.json is made from the first run and this machine unless it exists. Fill its empty fields in.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

fail() { echo "error: $1" >&2 && exit 2; }
if [ $# -lt 3 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
run_steps "" "$@"
package="${1%/}" system="$2"
shift 2
results="$package/results/$system/bert" code="$package/benchmarks/bert/implementations/bert_pretrain"
[ $# -eq 10 ] || fail "a result is made of ten runs, got $#"
[[ "$system" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "SYSTEM is a file name of letters, digits, . _ and -, got $system"
[ ! -e "$results" ] || fail "$results exists; choose another package or system"
for run in "$@"; do
  [ -f "$run/mllog.txt" ] || fail "$run/mllog.txt does not exist; train with --mlperf"
done

use_environment --mlperf
launch mkdir -p "$package/systems" "$results" "$code"
number=0
for run in "$@"; do
  launch cp "$run/mllog.txt" "$results/result_$number.txt"
  number=$((number + 1))
done
if [ ! -e "$package/systems/$system.json" ]; then
  launch "$python" -m bert_pretrain.environment.mlperf_system "$1" "$package/systems/$system.json"
fi
for part in bert_pretrain configs constraints docs scripts init_tf.sh setup.py README.md LICENSE; do
  launch cp -R "$project/$part" "$code/"
done
launch find "$code" -name __pycache__ -prune -exec rm -r {} +
launch cp "$1/run.json" "$code/$system.json"

# The checker's exit code is 0 in any case.
log="$package.checker.log"
launch "$python" -m mlperf_logging.package_checker "$package" training 5.0.0 --log_output "$log"
[ "${DRY_RUN:-}" = 1 ] || grep -q "FOUND NO ERRORS" "$log" || fail "the checker found errors; see $log"
