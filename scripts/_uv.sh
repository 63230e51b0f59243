# shellcheck shell=bash
# Sourced by init_tf.sh and make_constraints.sh, which set $project, say and run.

# Sets $uv to the program uv, which any Python with pip can fetch from PyPI. Fails where there is none.
find_uv() {
  local tools="$project/.cache/uv"
  uv="$(command -v uv || true)"
  if [ -n "$uv" ]; then return 0; fi
  uv="$tools/bin/uv"
  if [ -x "$uv" ]; then return 0; fi
  python3 -c 'import ensurepip, venv' 2>/dev/null || return 1
  say "Fetching uv into .cache/uv"
  run python3 -m venv "$tools" && run "$tools/bin/pip" install --quiet --disable-pip-version-check uv
}
