#!/usr/bin/env bash
# SAGE without data sets and downloads: a tiny model, whose vision tower imitates an ImageNet network and whose language
# model starts at random and is trained whole, learns from questions about half of the tile defects and answers others
# about the other half, beside an E-DPO whose ranks were shuffled. Run it in the project's root; settings are
# environment variables:
#
#   SEED=1 pipelines/sage_demo.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh
# shellcheck source=pipelines/controls/together.sh
. pipelines/controls/together.sh
# shellcheck source=pipelines/controls/before_sage.sh
. pipelines/controls/before_sage.sh

: "${TILES:=../shared/data/magnetic-tile}"     # the magnetic tile defects
: "${JUDGE:=words}"                            # gives the marks
: "${ASKING:=}"                                # how the base is asked
: "${TOWERS:=distilled}"                       # the vision tower imitates an ImageNet network; random: the control
: "${SEED:=0}"                                 # of every stage
small="--batch-size 8 --micro-batch 8 --precision fp32"
sfe_default="--lora-rank 0 --learning-rate 3e-3 --warmup 10 --epochs 3 $small"
edpo_default="--learning-rate 5e-4 --warmup 5 --epochs 2 $small"
: "${SFE:=$sfe_default}"                       # options of SFE's training
: "${EDPO:=$edpo_default}"                     # options of E-DPO's training
by_settings=$(folder runs/sage-demo "tiles $(basename "$TILES")" "tiles magnetic-tile" "judge $JUDGE" "judge words" \
  "asking $ASKING" "asking " "towers $TOWERS" "towers distilled" "sfe $SFE" "sfe $sfe_default" "edpo $EDPO" "edpo $edpo_default" "seed $SEED" "seed 0")
: "${G:=$by_settings}"  # folder for everything, named by the settings that are not the default
declare -a asking="($ASKING)" judging=() sfe="($SFE)" edpo="($EDPO)"
M=$G/manifest.parquet learn=$G/questions.parquet/learn test=$G/questions.parquet/test facts=$G/facts.parquet

case $TOWERS in distilled | random) ;; *) echo "TOWERS=$TOWERS: distilled or random" >&2; exit 2 ;; esac
if [ ! -d "$TILES" ]; then echo "no images: give TILES=..., or MVTEC_ROOT and VISA_ROOT" >&2; exit 2; fi
run adcli data index magnetic-tile "$TILES" --train-defects 0.5 --train-fraction 0.2 --out "$M" --overwrite
if [ "$TOWERS" = random ]; then
  [ -f "$G/base/model.safetensors" ] || run python -m pipelines.demo_models.random_vlm "$G/base"
elif [ ! -f "$G/base/distilled.txt" ]; then
  run adcli data synth surfaces --out "$G/surfaces" --good 80 --new 120 --overwrite
  run python -m pipelines.demo_models.distilled_vlm "$M" "$G/base"
fi
run adcli data questions "$M" --splits train --max-images 40 --out "$learn" --seed "$SEED" --overwrite
run adcli data questions "$M" --splits test --max-images 40 --out "$test" --seed "$SEED" --overwrite
for part in learn test; do
  run adcli caption "$M" --questions "$G/questions.parquet/$part" --vlm scene --prompt general \
    --out "$G/facts.parquet/$part" --overwrite
done

judge_choices "$M" "$learn" "$G/judged-choices.parquet" --overwrite
run python -m pipelines.first_row "$G/judged-choices.parquet" "JUDGE=$JUDGE"
run adcli finetune-mllm "$M" --method sage-sfe --questions "$learn" --facts "$facts" --base "$G/base" "${sfe[@]}" \
  --seed "$SEED" --out "$G/sfe.parquet" --overwrite
align() {   # questions, where the model goes
  run adcli finetune-mllm "$M" --method sage-edpo --questions "$1" --facts "$facts" \
    --judgements "$G/judged-choices.parquet" --checkpoint "$G/sfe.parquet" "${edpo[@]}" --seed "$SEED" --out "$2" \
    --overwrite
}
run python -m pipelines.controls.shuffled_ranks "$learn" "$G/shuffled.parquet"
together 'align "$learn" "$G/edpo.parquet"' 'align "$G/shuffled.parquet" "$G/edpo-shuffled.parquet"'

answer() {   # model, number of reference images
  run adcli score "$M" --method sage --facts "$facts" --precision fp32 --questions "$test" \
    --checkpoint "$G/$1.parquet" --shots "$2" --choose likelihood --name "sage-$1/$2-shot" \
    --out "$G/answers.parquet/$1-$2" --overwrite
}
answer_plain() {   # number of reference images
  run adcli score "$M" --method vlm-qa --vlm "$G/base" --questions "$test" --shots "$1" --choose likelihood \
    --out "$G/answers.parquet/plain-$1" --seed "$SEED" "${asking[@]}" --overwrite
}
for shots in 0 1; do
  together "answer sfe $shots" "answer edpo $shots" "answer edpo-shuffled $shots" "answer_plain $shots"
done
run adcli score "$M" --method mle --questions "$test" --answers "$G/answers.parquet" --judge "$JUDGE" \
  --out "$G/judged.parquet/answers" --overwrite
run adcli score "$M" --method mle --questions "$test" --judge "$JUDGE" --out "$G/judged.parquet/choices" --overwrite
run adcli evaluate --questions "$test" --answers "$G/answers.parquet" --judgements "$G/judged.parquet" \
  --manifest "$M" --out "$G/metrics.parquet" --tables "$G/tables" --report "$G/report.html" --overwrite
echo "report: $G/report.html"
echo "the model is tiny and was made minutes ago: these figures say that the training works, and nothing of SAGE"
