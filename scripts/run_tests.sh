#!/usr/bin/env bash
# Runs the tests:  bash scripts/run_tests.sh [pytest arguments]
# Without Horovod (bash init_tf.sh --horovod) or PyTorch (bash init_tf.sh --interop), the tests that need it are not run;
# the last lines of the output say so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

use_environment --test
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }
left_out=() select=""
has horovod || { left_out+=("horovod") && select="not horovod"; }
has torch || { left_out+=("interop") && select="${select:+$select and }not interop"; }

# Paths of test files are relative to the current directory; pytest runs in the project's.
arguments=()
for argument in "$@"; do
  if [ "${argument#/}" = "$argument" ] && [ -e "${argument%%::*}" ]; then argument="$PWD/$argument"; fi
  arguments+=("$argument")
done
cd "$project"

code=0
launch "$python" -m pytest -rs ${select:+-m "$select"} ${arguments[@]+"${arguments[@]}"} || code=$?
for extra in ${left_out[@]+"${left_out[@]}"}; do
  echo "Not run: tests marked $extra, which need what 'bash init_tf.sh --$extra' installs."
done
exit "$code"
