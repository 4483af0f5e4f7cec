#!/usr/bin/env bash
# VisualAD without data sets and downloads: half of the tile defects -> the other half, with a backbone that nobody has
# trained (pipelines/demo_models/filter_backbone.py). Run it in the project's root; settings are environment variables:
#
#   SEED=1 pipelines/visualad_demo.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${TILES:=../shared/data/magnetic-tile}"     # the magnetic tile defects
: "${SMALL:=--layers 2 --size 320}"            # options that fit the small backbone
: "${TRAIN:=}"                                 # further options of train-visualad
: "${SEED:=0}"                                 # of the training
by_settings=$(folder runs/visualad-demo "tiles $(basename "$TILES")" "tiles magnetic-tile" \
  "small $SMALL" "small --layers 2 --size 320" "train $TRAIN" "train " "seed $SEED" "seed 0")
: "${V:=$by_settings}"  # folder for everything, named by the settings that are not the default
declare -a small="($SMALL)" train="($TRAIN)"

if [ ! -d "$TILES" ]; then
  echo "no images: give TILES=..., or MVTEC_ROOT and VISA_ROOT" >&2
  exit 2
fi
[ -f "$V/backbone/preprocessor_config.json" ] ||
  run python -m pipelines.demo_models.filter_backbone "$V/backbone" 16 320
run adcli data index magnetic-tile "$TILES" --train-defects 0.5 --train-fraction 0.2 --out "$V/manifest.parquet" \
  --overwrite
# Ten times the paper's rate: with its own the loss is still falling after twice these steps (docs/visualad.md).
run adcli train-visualad "$V/manifest.parquet" --backbone "$V/backbone" "${small[@]}" --splits train --epochs 16 \
  --learning-rate 1e-2 "${train[@]}" --seed "$SEED" --out "$V/trained.parquet" --overwrite
run adcli score "$V/manifest.parquet" --method visualad --checkpoint "$V/trained.parquet" --out "$V/scores.parquet" \
  --maps "$V/maps.parquet" --overwrite
run adcli evaluate "$V/scores.parquet" --maps "$V/maps.parquet" --manifest "$V/manifest.parquet" \
  --out "$V/metrics.parquet" --tables "$V/tables" --report "$V/report.html" --overwrite
echo "report: $V/report.html"
echo "the backbone is untrained, its filters are written down:" \
  "these figures say that the training works, and nothing of VisualAD"
