#!/usr/bin/env bash
# VisualAD's Tables 2 (modules and losses), 3 (anchors), 4 (layers) and 5 (positions), and Figure 4 (backbones). Run
# pipelines/visualad.sh first, for the manifests. Run it in the project's root; settings are environment variables:
#
#   TABLES="2 figure4" pipelines/visualad_ablations.sh
#   ABLATE="--anchors=1 --anchors=8" pipelines/visualad_ablations.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${TABLES:=2 3 4 5}"                                       # of 2, 3, 4, 5 and figure4
: "${BACKBONE:=openai/clip-vit-large-patch14-336}"           # frozen vision transformer: directory or hub id
: "${EPOCHS:=2}"                                             # as the main run: 2 on MVTec AD, 1 on VisA
: "${TRAIN:=}"                                               # further options of train-visualad
: "${SEED:=0}"                                               # of the training
: "${JOBS:=2}"                                               # processes that evaluate pixels
: "${PIXELS:=518}"                                           # side that maps and masks are evaluated at, px
: "${L:=runs/lvlm}"                                          # folder with the manifests
: "${ABLATE_ON:=$L/manifest.parquet/mvtec-ad/original}"      # manifest to train on
: "${ABLATE_TO:=$L/manifest.parquet/visa/original}"          # manifest to test on
rows=full
for table in $TABLES; do
  case $table in
    2) rows+=" --without=sca --without=saf --without=sca,saf --without=focal --without=dice --without=contrast" ;;
    3) rows+=" --anchors=1 --anchors=2 --anchors=8 --anchors=16 --anchors=32" ;;
    4) rows+=" --layers=6 --layers=12 --layers=18 --layers=24 --layers=6,12 --layers=6,12,18" ;;
    5) rows+=" --position=none --position=1d-sin --position=2d --position=2d-sin" ;;
    # Which layers and sizes the paper takes of other models it does not say: quarters of the depth, the nearest size.
    figure4)
      small="--layers=3,6,9,12"
      rows+=" '--backbone=openai/clip-vit-base-patch32 $small --size=512'"
      rows+=" '--backbone=openai/clip-vit-base-patch16 $small --size=512' --backbone=openai/clip-vit-large-patch14"
      rows+=" '--backbone=facebook/dinov2-small $small' '--backbone=facebook/dinov2-base $small'"
      rows+=" --backbone=facebook/dinov2-large '--backbone=facebook/dinov2-giant --layers=10,20,30,40'" ;;
    *) echo "$0: TABLES: $table is none of 2, 3, 4, 5 and figure4" >&2; exit 2 ;;
  esac
done
: "${ABLATE:=$rows}"    # a training with each of these options, several in quotes; full = with none
by_settings=$(folder runs/visualad "${BACKBONE#openai/}" "" "train $TRAIN" "train " "seed $SEED" "seed 0")
: "${V:=$by_settings}"  # folder for everything, named by the settings that are not the default
A=$(folder "$V/ablation" "on $ABLATE_ON" "on $L/manifest.parquet/mvtec-ad/original" \
  "to $ABLATE_TO" "to $L/manifest.parquet/visa/original" "epochs $EPOCHS" "epochs 2")
declare -a train="($TRAIN)" options="($ABLATE)"

for option in "${options[@]}"; do
  name=visualad-$(sed -e 's/^--//; s/ --/-/g' -e 's/[= /]/-/g' <<< "$option")
  read -ra more <<< "${option#full}"
  run adcli train-visualad "$ABLATE_ON" --backbone "$BACKBONE" --epochs "$EPOCHS" --precision fp32 "${train[@]}" \
    "${more[@]}" --seed "$SEED" --out "$A/$name.parquet"
  run adcli score "$ABLATE_TO" --method visualad --name "$name" --checkpoint "$A/$name.parquet" --precision fp32 \
    --out "$A/scores.parquet/$name" --maps "$A/maps.parquet/$name"
done
run adcli evaluate "$A/scores.parquet" --maps "$A/maps.parquet" --manifest "$ABLATE_TO" --pixel-size "$PIXELS" \
  --workers "$JOBS" --out "$A/metrics.parquet" --tables "$A/tables" --report "$A/report.html" --overwrite
echo "report: $A/report.html"
