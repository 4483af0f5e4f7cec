#!/usr/bin/env bash
# The stages of VID-AD on real photographs: the magnetic tile defects. Run it in the project's root; settings are
# environment variables:
#
#   TILES=/data/Magnetic-tile-defect-datasets. VLM=qwen2-vl pipelines/tiles.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${TILES:=../shared/data/magnetic-tile}"      # the data set
: "${VLM:=scene}"                               # describes the images
: "${REWRITER:=rules}"                          # writes the contradictions
: "${ENCODER:=minilm}"                          # text encoder that is trained
: "${SEED:=0}"                                  # of every stage
by_settings=$(folder runs/tiles "$(basename "$TILES")" magnetic-tile "vlm $VLM" "vlm scene" "rewriter $REWRITER" \
  "rewriter rules" "encoder $ENCODER" "encoder minilm" "seed $SEED" "seed 0")
: "${T:=$by_settings}"  # folder for everything, named by the settings that are not the default

run adcli data index magnetic-tile "$TILES" --out "$T/manifest.parquet" --overwrite
run adcli caption "$T/manifest.parquet" --vlm "$VLM" --out "$T/captions.parquet" --seed "$SEED" --overwrite
run adcli rewrite-negatives "$T/captions.parquet" --manifest "$T/manifest.parquet" --rewriter "$REWRITER" \
  --out "$T/negatives.parquet" --seed "$SEED" --overwrite
run adcli train-encoder "$T/negatives.parquet" --manifest "$T/manifest.parquet" --encoder "$ENCODER" \
  --out "$T/encoders.parquet" --seed "$SEED" --overwrite
run adcli score "$T/manifest.parquet" --method text-knn --captions "$T/captions.parquet" \
  --encoders "$T/encoders.parquet" --out "$T/scores.parquet" --overwrite
run adcli evaluate "$T/scores.parquet" --manifest "$T/manifest.parquet" --out "$T/metrics.parquet" \
  --tables "$T/tables" --report "$T/report.html" --overwrite
echo "report: $T/report.html"
