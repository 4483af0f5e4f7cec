#!/usr/bin/env bash
# VID-AD: caption every image, rewrite captions into contradictions, train a text encoder per task, score by kNN.
# Without VIDAD_ROOT it renders its scenes: no GPU, no downloads. Run it in the project's root; settings are
# environment variables:
#
#   SCENARIOS=fruits,sticks CONDITIONS=white_bg pipelines/vidad.sh
#   VIDAD_ROOT=/data/VID-AD VLM=qwen2-vl REWRITER=qwen2-vl ENCODER=bert-base-uncased pipelines/vidad.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${SCENARIOS:=dishes,tapes,fruits,sticks,ropes,cookies,blocks,tools,stationery,balls}"  # one after the other
: "${CONDITIONS:=}"        # only these capture conditions, comma-separated; empty = all five
: "${VIDAD_ROOT:=}"        # the real data set; empty = rendered scenes
: "${VLM:=scene}"          # describes the images
: "${REWRITER:=rules}"     # writes the contradictions
: "${ENCODER:=minilm}"     # text encoder that is trained
: "${SEED:=0}"             # of every stage
: "${SIZE:=360}"           # side of the rendered scenes, px
: "${JOBS:=2}"             # trainings at a time, of one thread each: faster than one training with JOBS threads
: "${CHECK:=}"             # yes = print the figures with their targets, too, and how often `scene` is right
by_settings=$(folder runs/vidad "$(basename "$VIDAD_ROOT")" "" "vlm $VLM" "vlm scene" "rewriter $REWRITER" \
  "rewriter rules" "encoder $ENCODER" "encoder minilm" "$CONDITIONS" "" "size $SIZE" "size 360" "seed $SEED" "seed 0")
: "${RUN:=$by_settings}"  # folder for everything, named by the settings that are not the default

ROOT=${VIDAD_ROOT:-$RUN/scenes}
IFS=', ' read -ra scenarios <<< "$SCENARIOS"
conditions=(${CONDITIONS:+--conditions "$CONDITIONS"})
threads=$([ "$JOBS" -eq 1 ] || echo 1)

describe() {
  local only=(--scenarios "$1" "${conditions[@]}")
  if [ -z "$VIDAD_ROOT" ]; then
    run adcli data synth vidad --out "$RUN/scenes" "${only[@]}" --size "$SIZE" --seed "$SEED" --overwrite
  fi
  run adcli data index vidad "$ROOT" "${only[@]}" --out "$RUN/manifest.parquet/$1" --overwrite
  run adcli caption "$RUN/manifest.parquet/$1" --vlm "$VLM" --out "$RUN/captions.parquet/$1" --seed "$SEED" --overwrite
  run adcli rewrite-negatives "$RUN/captions.parquet/$1" --manifest "$RUN/manifest.parquet/$1" \
    --rewriter "$REWRITER" --out "$RUN/negatives.parquet/$1" --seed "$SEED" --overwrite
}
train() {
  seq 0 $((JOBS - 1)) | OMP_NUM_THREADS=$threads xargs -P "$JOBS" -I{} bash -c 'run "$@"' run \
    adcli train-encoder "$RUN/negatives.parquet/$1" --manifest "$RUN/manifest.parquet/$1" --encoder "$ENCODER" \
    --out "$RUN/encoders.parquet/$1" --seed "$SEED" --overwrite --shard "{}/$JOBS"
}
score() {
  run adcli score "$RUN/manifest.parquet/$1" --method text-knn --captions "$RUN/captions.parquet/$1" \
    --encoders "$RUN/encoders.parquet/$1" --out "$RUN/scores.parquet/$1" --overwrite
  run adcli evaluate "$RUN/scores.parquet" --partial --manifest "$RUN/manifest.parquet" \
    --out "$RUN/metrics-so-far.parquet" --overwrite
}
# While one scenario trains, the next is rendered and described with what is left of the processor, and the last is
# scored: each loop hands the names that are ready to the next one.
describe_all() {
  renice -n 5 $BASHPID > /dev/null 2>&1 || true
  for s in "${scenarios[@]}"; do describe "$s" >&2; echo "$s"; done
}
train_all() { while read -r s; do train "$s" < /dev/null >&2; echo "$s"; done; }
score_all() { while read -r s; do score "$s" < /dev/null; done; }

if [ "$JOBS" -gt 1 ] && [ "$VLM $REWRITER" = "scene rules" ]; then
  { describe_all | train_all | score_all; } 2>&1 | cat      # lines instead of three progress bars
else                                                        # a model on a GPU needs it for itself
  for s in "${scenarios[@]}"; do describe "$s"; train "$s"; score "$s"; done
fi
run adcli evaluate "$RUN/scores.parquet" --manifest "$RUN/manifest.parquet" --out "$RUN/metrics.parquet" \
  --tables "$RUN/tables" --report "$RUN/report.html" --seed "$SEED" --overwrite
echo "report: $RUN/report.html"

if [ "$CHECK" = yes ]; then
  run python -m benchmarks.vidad_check "$RUN"
  run adcli data synth vidad --out "$RUN/check/scenes" --size "$SIZE" --seed 100 --overwrite
  run adcli data index vidad "$RUN/check/scenes" --out "$RUN/check/manifest.parquet" --overwrite
  run adcli caption "$RUN/check/manifest.parquet" --out "$RUN/check/captions.parquet" --overwrite
  echo "scenes of a seed that the captioner was not tuned on:"
  run python -m benchmarks.caption_accuracy "$RUN/check/captions.parquet" "$RUN/check/scenes/truth.parquet"
fi
