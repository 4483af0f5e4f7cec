#!/usr/bin/env bash
# VisualAD's Tables 3 (anchors), 4 (layers) and 5 (positions). Run pipelines/visualad.sh first, for the
# manifests. Run it in the project's root; settings are environment variables:
#
#   ABLATE="--anchors=1 --anchors=8" pipelines/visualad_ablations.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${BACKBONE:=openai/clip-vit-large-patch14-336}"           # frozen vision transformer: directory or hub id
: "${TRAIN:=}"                                               # further options of train-visualad
: "${SEED:=0}"                                               # of the training
: "${JOBS:=2}"                                               # processes that evaluate pixels
: "${L:=runs/lvlm}"                                          # folder with the manifests
: "${ABLATE_ON:=$L/manifest.parquet/mvtec-ad/original}"      # manifest to train on
: "${ABLATE_TO:=$L/manifest.parquet/visa/original}"          # manifest to test on
ablations="--anchors=1 --anchors=2 --anchors=4 --anchors=8 --anchors=16 --anchors=32 --layers=6 --layers=12 \
--layers=18 --layers=24 --layers=6,12 --layers=6,12,18 --position=none --position=1d-sin --position=2d \
--position=2d-sin"
: "${ABLATE:=$ablations}"                                    # a training with each of these options
by_settings=$(folder runs/visualad "${BACKBONE#openai/}" "" "train $TRAIN" "train " "seed $SEED" "seed 0")
: "${V:=$by_settings}"  # folder for everything, named by the settings that are not the default
A=$(folder "$V/ablation" "on $ABLATE_ON" "on $L/manifest.parquet/mvtec-ad/original" \
  "to $ABLATE_TO" "to $L/manifest.parquet/visa/original")
declare -a train="($TRAIN)" options="($ABLATE)"

for option in "${options[@]}"; do
  name=visualad-$(tr -d - <<< "$option" | tr '=' -)
  run adcli train-visualad "$ABLATE_ON" --backbone "$BACKBONE" "${train[@]}" "$option" --seed "$SEED" \
    --out "$A/$name.parquet"
  run adcli score "$ABLATE_TO" --method visualad --name "$name" --checkpoint "$A/$name.parquet" \
    --out "$A/scores.parquet/$name" --maps "$A/maps.parquet/$name"
done
run adcli evaluate "$A/scores.parquet" --maps "$A/maps.parquet" --manifest "$ABLATE_TO" --pixel-size 518 \
  --workers "$JOBS" --out "$A/metrics.parquet" --tables "$A/tables" --report "$A/report.html" --overwrite
echo "report: $A/report.html"
