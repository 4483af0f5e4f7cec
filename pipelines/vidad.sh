#!/usr/bin/env bash
# VID-AD: caption every image, rewrite captions into contradictions, train a text encoder per task, score by kNN.
# Without VIDAD_ROOT it renders its scenes: no GPU, no downloads. Run it in the project's root; settings are variables:
#
#   SCENARIOS=fruits,sticks CONDITIONS=white_bg pipelines/vidad.sh
#   VIDAD_ROOT=/data/VID-AD ASK="--engine vllm" pipelines/vidad.sh    # the paper's setting, also said as PAPER=1
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

all=dishes,tapes,fruits,sticks,ropes,cookies,blocks,tools,stationery,balls paper=(scene minilm "" "")
: "${SCENARIOS:=$all}"     # which of the ten; `scene` describes one after the other, a model all at once
: "${CONDITIONS:=}"        # only these capture conditions, comma-separated; empty = all five
: "${VIDAD_ROOT:=}"        # the real data set; empty = rendered scenes
: "${PAPER:=}"             # 1 = the paper's models and procedure, as for any VIDAD_ROOT
if [ -n "$PAPER" ]; then need "PAPER=1 needs the paper's data: give VIDAD_ROOT, too" "$VIDAD_ROOT"; fi
if [ -n "$VIDAD_ROOT" ]; then paper=(qwen2-vl bert-base-uncased --keep-unchecked "--precision fp32"); fi
: "${VLM:=${paper[0]}}"    # describes the images: qwen2-vl, or scene for rendered scenes
if [ "$VLM" = scene ]; then own=rules; else own=$VLM; fi
: "${REWRITER:=$own}"      # writes the contradictions: the same model, or rules beside scene
: "${ENCODER:=${paper[1]}}"  # text encoder that is trained: bert-base-uncased, or minilm for rendered scenes
: "${ASK:=}"               # more options of caption and rewrite-negatives: "--engine vllm --dtype bfloat16"
: "${CAPTION:=}"           # more options of caption alone: "--prompt /data/VID-AD/prompt", a folder of prompts
if [ "$REWRITER" = rules ]; then paper[2]=""; fi
: "${REWRITE:=${paper[2]}}"  # more options of rewrite-negatives: --keep-unchecked for a model on the real data
: "${TRAIN:=${paper[3]}}"  # more options of train-encoder, "--epochs 40": --precision fp32 on the real data
: "${MAX_ERRORS:=20}"      # failed rows in succession that stop a stage; 0 = never
: "${SEED:=0}"             # of every stage
: "${SIZE:=360}"           # side of the rendered scenes, px
: "${JOBS:=2}"             # trainings at a time, of one thread each: faster than one training with JOBS threads
: "${CHECK:=}"             # yes = print the figures with their targets, too, and how often `scene` is right
each=${SCENARIOS// /} chosen=$each   # a model is loaded once for all scenarios, which Slurm gets at once, too
if [ "$VLM $REWRITER${SUBMIT_AFTER-}" = "scene rules" ]; then each=${SCENARIOS//,/ } chosen=$all; fi
by_settings=$(folder runs/vidad "$(basename "$VIDAD_ROOT")" "" "vlm $VLM" "vlm ${paper[0]}" "rewriter $REWRITER" \
  "rewriter $own" "encoder $ENCODER" "encoder ${paper[1]}" "$ASK" "" "$CAPTION" "" "$REWRITE" "${paper[2]}" \
  "$TRAIN" "${paper[3]}" "$chosen" "$all" "$CONDITIONS" "" "size $SIZE" "size 360" "seed $SEED" "seed 0")
: "${RUN:=$by_settings}"   # folder for everything, named by the settings that are not the default
: "${TRAINED:=$RUN}"       # folder for encoders and tables, where other runs share these captions
: "${SCORES:=$TRAINED/scores.parquet}"  # folder for the scores, where several runs make one table
: "${NAME:=text-knn}"      # what tables call this run
read -ra each <<< "$each"; read -ra ask <<< "$ASK $CAPTION"; read -ra rewrite <<< "$ASK $REWRITE"
read -ra train <<< "$TRAIN"; more=(--seed "$SEED" --overwrite --max-errors "$MAX_ERRORS") alone=()
if [ "$JOBS" -gt 1 ]; then alone=(env OMP_NUM_THREADS=1); fi

describe() {
  local only=(--scenarios "$1" ${CONDITIONS:+--conditions "$CONDITIONS"})
  if [ -z "$VIDAD_ROOT" ]; then
    run adcli data synth vidad --out "$RUN/scenes" "${only[@]}" --size "$SIZE" --seed "$SEED" --overwrite
  fi
  run adcli data index vidad "${VIDAD_ROOT:-$RUN/scenes}" "${only[@]}" --out "$RUN/manifest.parquet/$1" --overwrite
  run adcli caption "$RUN/manifest.parquet/$1" --vlm "$VLM" "${ask[@]}" --out "$RUN/captions.parquet/$1" "${more[@]}"
  run adcli rewrite-negatives "$RUN/captions.parquet/$1" --manifest "$RUN/manifest.parquet/$1" \
    --rewriter "$REWRITER" "${rewrite[@]}" --out "$RUN/negatives.parquet/$1" "${more[@]}"
}
train() {
  seq 0 $((JOBS - 1)) | "${alone[@]}" xargs -P "$JOBS" -I{} bash -c 'run "$@"' run \
    adcli train-encoder "$RUN/negatives.parquet/$1" --manifest "$RUN/manifest.parquet/$1" --encoder "$ENCODER" \
    "${train[@]}" --out "$TRAINED/encoders.parquet/$1" "${more[@]}" --shard "{}/$JOBS"
}
score() {
  run adcli score "$RUN/manifest.parquet/$1" --method text-knn --name "$NAME" --captions "$RUN/captions.parquet/$1" \
    --encoders "$TRAINED/encoders.parquet/$1" --out "$SCORES/$1" --overwrite --max-errors "$MAX_ERRORS"
  run adcli evaluate "$SCORES" --partial --manifest "$RUN/manifest.parquet" \
    --out "$TRAINED/metrics-so-far.parquet" --overwrite
}
# Scenarios are described, trained and scored side by side: each loop hands the names that are ready to the next one.
describe_all() {
  renice -n 5 $BASHPID > /dev/null 2>&1 || true
  for s in "${each[@]}"; do describe "$s" >&2; echo "$s"; done
}
train_all() { while read -r s; do train "$s" < /dev/null >&2; echo "$s"; done; }
score_all() { while read -r s; do score "$s" < /dev/null; done; }
if [ "$JOBS" -gt 1 ] && [ "${#each[@]}" -gt 1 ]; then
  { describe_all | train_all | score_all; } 2>&1 | cat      # lines instead of three progress bars
else for s in "${each[@]}"; do describe "$s"; train "$s"; score "$s"; done; fi
run adcli evaluate "$SCORES" --manifest "$RUN/manifest.parquet" --out "$TRAINED/metrics.parquet" \
  --tables "$TRAINED/tables" --report "$TRAINED/report.html" --seed "$SEED" --overwrite
echo "report: $TRAINED/report.html"
# shellcheck source=pipelines/controls/vidad_check.sh
if [ "$CHECK" = yes ]; then . pipelines/controls/vidad_check.sh; fi
