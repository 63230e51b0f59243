#!/usr/bin/env bash
# Own text -> vocabulary -> shards -> pretraining -> Hugging Face folder -> a classifier with few labels.
#   bash examples/own_text/run.sh [OUT]       default: results/own_text
#   UPDATES=3000 LABELS=16 SEEDS=5 EPOCHS=12  sizes; smaller ones are for trying out
#   PACKAGES="numpy scipy"                    other packages whose docstrings are the text
# The same command goes on where it was stopped.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../scripts/_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/_launch.sh"
example="$project/examples/own_text"
out="${1:-$PWD/results/own_text}"
run_steps "$out" "$@"
use_environment --data --interop

# 1. Text: a folder of .txt files. Any folder of text serves; this one needs no download. Beside it, the labelled set.
if [ ! -d "$out/labelled" ]; then
  doing "collecting text"
  launch "$python" "$example/collect.py" "$out" ${PACKAGES:+"--packages=$PACKAGES"}
fi

# 2. Sentences, vocabulary and shards; a tenth of the text is held out.
VOCAB_SIZE=8000 NUM_SHARDS=4 launch bash "$project/scripts/make_data.sh" "$out/text" "$out/data" --dupe_factor=1

# 3. Pretraining.
doing "pretraining"
launch "$python" -m bert_pretrain.run "--flagfile=$example/pretrain.flags" "--output_dir=$out/run" \
  "--input_files_dir=$out/data/train" "--eval_files_dir=$out/data/eval" "--vocab_file=$out/data/vocab.txt" \
  "--bert_config_file=$example/bert_config.json" ${UPDATES:+"--num_train_steps=$UPDATES"}

# 4. A folder that transformers loads.
if [ ! -d "$out/hf" ]; then
  doing "exporting the model"
  launch "$python" -m bert_pretrain.export "--checkpoint=$out/run" "--vocab_file=$out/data/vocab.txt" \
    "--hf_dir=$out/hf" --verify
fi

# 5. The classifier, from these weights and from random ones.
doing "training the classifiers"
launch_last "$python" "$example/classify.py" "$out/hf" "$out/labelled" ${LABELS:+"--labels=$LABELS"} \
  ${SEEDS:+"--seeds=$SEEDS"} ${EPOCHS:+"--epochs=$EPOCHS"}
