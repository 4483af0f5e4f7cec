#!/usr/bin/env bash
# VMAD without data sets and downloads: tiny models learn from half of the tile defects, beside a control that learns from
# shuffled masks. LLaVA is random, SAM's encoder imitates an ImageNet network. Run it in the project's root; settings are
# environment variables:
#
#   SEED=1 pipelines/vmad_demo.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh
# shellcheck source=pipelines/controls/together.sh
. pipelines/controls/together.sh

: "${TILES:=../shared/data/magnetic-tile}"     # the magnetic tile defects
small="--tasks segmentation --heads 4 --depth 1 --boxes 4 --box-size 32 --drawn 2 --epochs 11 --batch-size 8 \
--micro-batch 8 --learning-rate 2e-3 --weight-dice 5 --precision fp32"
: "${VMAD_SMALL:=$small}"                      # options that fit the tiny models
: "${VMAD_TRAIN:=}"                            # further options of the training
: "${VMAD_SCORE:=}"                            # further options of the scoring
: "${LLAVA:=}"                                 # another model than the tiny random LLaVA
: "${SAM:=}"                                   # another model than the tiny SAM
: "${TOWERS:=distilled}"                       # SAM's encoder imitates an ImageNet network; random: the control
: "${ROWS:=}"                                  # yes: the other rows of Table III, and a model that learned nothing, too
: "${SEED:=0}"                                 # of the split and of the training
: "${GPUS:=1}"                                 # of this machine, for training
: "${JOBS:=2}"                                 # trainings at a time, and processes that evaluate pixels
by_settings=$(folder runs/vmad-demo "llava $LLAVA" "llava " "sam $SAM" "sam " "towers $TOWERS" "towers distilled" \
  "tiles $(basename "$TILES")" "tiles magnetic-tile" "small $VMAD_SMALL" "small $small" "train $VMAD_TRAIN" "train " \
  "score $VMAD_SCORE" "score " "${ROWS:+rows}" "" "seed $SEED" "seed 0")
: "${VM:=$by_settings}"  # folder for everything, named by the settings that are not the default
: "${LLAVA:=$VM/models/llava}" "${SAM:=$VM/models/sam}"
declare -a small="($VMAD_SMALL)" train="($VMAD_TRAIN)" score="(--max-tokens 16 --precision fp32 $VMAD_SCORE)"
learner_on "$GPUS"

learn() {   # manifest, where the model goes, further options
  run "${learner[@]}" finetune-mllm "$1" --method vmad --llava "$LLAVA" --sam "$SAM" "${small[@]}" "${@:3}" \
    "${train[@]}" --seed "$SEED" --out "$2" --overwrite
}
score() {   # name of a model
  run adcli score "$VM/manifest.parquet" --method vmad --name "$1" --checkpoint "$VM/$1.parquet" "${score[@]}" \
    --out "$VM/scores.parquet/$1" --maps "$VM/maps.parquet/$1" --overwrite
}

case $TOWERS in distilled | random) ;; *) echo "TOWERS=$TOWERS: distilled or random" >&2; exit 2 ;; esac
if [ ! -d "$TILES" ]; then echo "no images: give TILES=..., or RIAD_ROOT" >&2; exit 2; fi
[ -f "$VM/models/sam/preprocessor_config.json" ] || run python -m pipelines.demo_models.random_vmad "$VM/models"
run adcli data index magnetic-tile "$TILES" --train-defects 0.5 --train-fraction 0.2 --seed "$SEED" \
  --out "$VM/manifest.parquet" --overwrite
if [ "$TOWERS" = distilled ] && [ "$SAM" = "$VM/models/sam" ] && [ ! -f "$SAM/distilled.txt" ]; then
  run adcli data synth surfaces --out "$VM/models/surfaces" --good 80 --new 120 --overwrite
  run python -m pipelines.demo_models.distilled "$VM/manifest.parquet" "$VM/models"
fi
run python -m pipelines.controls.shuffled_masks "$VM/manifest.parquet" "$VM/shuffled.parquet"
names=(vmad vmad-shuffled)
jobs=('learn "$VM/manifest.parquet" "$VM/vmad.parquet"'
  'learn "$VM/shuffled.parquet" "$VM/vmad-shuffled.parquet" --root "$TILES"')
if [ "$ROWS" = yes ]; then
  names+=(vmad-untrained vmad-neither vmad-dssl vmad-ltc)
  jobs+=('learn "$VM/manifest.parquet" "$VM/vmad-neither.parquet" --projector mlp --no-dssl'
    'learn "$VM/manifest.parquet" "$VM/vmad-dssl.parquet" --projector mlp'
    'learn "$VM/manifest.parquet" "$VM/vmad-ltc.parquet" --no-dssl')
fi
together "${jobs[@]}"
if [ "$ROWS" = yes ]; then
  run python -m pipelines.controls.untrained_vmad "$VM/vmad.parquet" "$VM/vmad-untrained.parquet"
fi
together "${names[@]/#/score }"
run adcli evaluate "$VM/scores.parquet" --maps "$VM/maps.parquet" --manifest "$VM/manifest.parquet" \
  --workers "$JOBS" --out "$VM/metrics.parquet" --tables "$VM/tables" --report "$VM/report.html" --seed "$SEED" \
  --overwrite
echo "report: $VM/report.html"
echo "the models are tiny and were made minutes ago: these figures say that the training works, and nothing of VMAD"
