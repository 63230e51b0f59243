#!/usr/bin/env bash
# Runs the tests:  bash scripts/run_tests.sh [--slow] [pytest arguments]
# Tests that are marked slow are left out, except with --slow, or where a test is named (tests/x.py::test_y). Several
# processes run the tests unless files or folders are named; -n 0 forbids it, -n 2 asks for it (tests/conftest.py).
# Without Horovod (bash init_tf.sh --horovod) or PyTorch (bash init_tf.sh --interop), the tests that need it are not run.
# The output says before its last line what was left out.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

use_environment --test
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }

# Paths of test files are relative to the current directory; pytest runs in the project's.
select="not slow" arguments=()
for argument in "$@"; do
  case "$argument" in
    --slow) select="" && continue ;;
    *::*) select="" ;;
  esac
  if [ "${argument#/}" = "$argument" ] && [ -e "${argument%%::*}" ]; then argument="$PWD/$argument"; fi
  arguments+=("$argument")
done
has horovod || select="${select:+$select and }not horovod"
has torch || select="${select:+$select and }not interop"
cd "$project"
unset PYTHONSAFEPATH # tests are imported from there

launch_last "$python" -m pytest -rs -n auto ${select:+-m "$select"} ${arguments[@]+"${arguments[@]}"}
