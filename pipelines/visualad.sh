#!/usr/bin/env bash
# VisualAD: trained on one data set, tested on another: VisA -> MVTec AD and MVTec AD -> VisA, with the epochs of the
# released scripts. A demo without data sets and downloads is pipelines/visualad_demo.sh. Run it in the project's root;
# settings are environment variables:
#
#   MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA BACKBONE=facebook/dinov2-large pipelines/visualad.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${MVTEC_ROOT:=}"                                      # MVTec AD
: "${VISA_ROOT:=}"                                       # VisA
: "${BACKBONE:=openai/clip-vit-large-patch14-336}"       # frozen vision transformer: directory or hub id
: "${TRAIN:=}"                                           # further options of train-visualad
: "${SEED:=0}"                                           # of the training
: "${JOBS:=2}"                                           # processes that evaluate pixels
: "${L:=runs/lvlm}"                                      # folder with the manifests, which lvlm.sh shares
by_settings=$(folder runs/visualad "${BACKBONE#openai/}" "" "train $TRAIN" "train " "seed $SEED" "seed 0")
: "${V:=$by_settings}"  # folder for everything, named by the settings that are not the default
need "trained on one, tested on the other: give MVTEC_ROOT and VISA_ROOT" "$MVTEC_ROOT" "$VISA_ROOT"
declare -a train="($TRAIN)"

learn_and_score() {   # data set to train on, data set to test on, epochs
  run adcli train-visualad "$L/manifest.parquet/$1/original" --backbone "$BACKBONE" --epochs "$3" "${train[@]}" \
    --seed "$SEED" --out "$V/trained-on-$1.parquet"
  run adcli score "$L/manifest.parquet/$2/original" --method visualad --checkpoint "$V/trained-on-$1.parquet" \
    --out "$V/scores.parquet/$2" --maps "$V/maps.parquet/$2"
}

run adcli data index mvtec-ad "$MVTEC_ROOT" --out "$L/manifest.parquet/mvtec-ad/original" --overwrite
run adcli data index visa "$VISA_ROOT" --out "$L/manifest.parquet/visa/original" --overwrite
learn_and_score visa mvtec-ad 1
learn_and_score mvtec-ad visa 2
run adcli evaluate "$V/scores.parquet" --maps "$V/maps.parquet" --manifest "$L/manifest.parquet" --pixel-size 518 \
  --pro-200 --workers "$JOBS" --out "$V/metrics.parquet" --tables "$V/tables" --report "$V/report.html" --overwrite
echo "report: $V/report.html"
