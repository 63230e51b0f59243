#!/usr/bin/env bash
# Runs the tests:  bash scripts/run_tests.sh [pytest arguments]
# Without Horovod (bash init_tf.sh --horovod) or PyTorch (bash init_tf.sh --interop), the tests that need it are not run;
# the output says so before its last line (tests/conftest.py).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

use_environment --test
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }
select=""
has horovod || select="not horovod"
has torch || select="${select:+$select and }not interop"

# Paths of test files are relative to the current directory; pytest runs in the project's.
arguments=()
for argument in "$@"; do
  if [ "${argument#/}" = "$argument" ] && [ -e "${argument%%::*}" ]; then argument="$PWD/$argument"; fi
  arguments+=("$argument")
done
cd "$project"

launch_last "$python" -m pytest -rs ${select:+-m "$select"} ${arguments[@]+"${arguments[@]}"}
