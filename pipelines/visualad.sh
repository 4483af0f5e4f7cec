#!/usr/bin/env bash
# VisualAD as in Table 1: trained on VisA, tested on each data set whose root is given, and on VisA trained on MVTec AD,
# with the epochs of the released scripts. A demo without data sets and downloads is pipelines/visualad_demo.sh. Run it
# in the project's root; settings are environment variables:
#
#   MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA BACKBONE=facebook/dinov2-large pipelines/visualad.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${MVTEC_ROOT:=}"                                      # MVTec AD
: "${VISA_ROOT:=}"                                       # VisA
: "${BTAD_ROOT:=}"                                       # BTAD
: "${KSDD2_ROOT:=}"                                      # KolektorSDD2
: "${DAGM_ROOT:=}"                                       # DAGM
: "${DTD_ROOT:=}"                                        # DTD-Synthetic
: "${OCT17_ROOT:=}"                                      # OCT17
: "${BRAIN_MRI_ROOT:=}"                                  # BrainMRI
: "${BRAIN_AD_ROOT:=}"                                   # Brain-AD
: "${HIS_ROOT:=}"                                        # HIS
: "${CLINICDB_ROOT:=}"                                   # CVC-ClinicDB
: "${ENDO_ROOT:=}"                                       # Endo
: "${KVASIR_ROOT:=}"                                     # Kvasir
: "${BACKBONE:=openai/clip-vit-large-patch14-336}"       # frozen vision transformer: directory or hub id
: "${MODELS:=plain as-released}"                         # of plain, as-released, bf16, paper; fp32 but for bf16
: "${TRAIN:=}"                                           # further options of train-visualad
: "${SEED:=0}"                                           # of the training
: "${JOBS:=2}"                                           # processes that evaluate pixels
: "${PIXELS:=518}"                                       # side that maps and masks are evaluated at, px
: "${L:=runs/lvlm}"                                      # folder with the manifests, which lvlm.sh shares
by_settings=$(folder runs/visualad "${BACKBONE#openai/}" "" "train $TRAIN" "train " "seed $SEED" "seed 0")
: "${V:=$by_settings}"  # folder for everything, named by the settings that are not the default
need "trained on one, tested on the other: give MVTEC_ROOT and VISA_ROOT" "$MVTEC_ROOT" "$VISA_ROOT"
declare -a train="($TRAIN)" others=()

index() {   # data set, which is also the layout; root
  if [ -n "$2" ]; then run adcli data index "$1" "$2" --out "$L/manifest.parquet/$1/original" --overwrite; fi
}
learn_and_score() {   # data set to train on, epochs, data sets to test on; precision, name and more are set
  local on=$1 set
  run adcli train-visualad "$L/manifest.parquet/$on/original" --backbone "$BACKBONE" --epochs "$2" \
    --precision "$precision" "${train[@]}" "${more[@]}" --seed "$SEED" --out "$V/trained-on-$on$suffix.parquet"
  for set in "${@:3}"; do
    run adcli score "$L/manifest.parquet/$set/original" --method visualad --name "visualad$suffix" \
      --checkpoint "$V/trained-on-$on$suffix.parquet" --precision "$precision" \
      --out "$V/scores.parquet/$set$suffix" --maps "$V/maps.parquet/$set$suffix"
  done
}

index mvtec-ad "$MVTEC_ROOT"
index visa "$VISA_ROOT"
for pair in "btad $BTAD_ROOT" "ksdd2 $KSDD2_ROOT" "dagm $DAGM_ROOT" "dtd-synthetic $DTD_ROOT" "oct17 $OCT17_ROOT" \
  "brain-mri $BRAIN_MRI_ROOT" "brain-ad $BRAIN_AD_ROOT" "his $HIS_ROOT" "cvc-clinicdb $CLINICDB_ROOT" \
  "endo $ENDO_ROOT" "kvasir $KVASIR_ROOT"; do
  index "${pair%% *}" "${pair#* }"
  if [ -n "${pair#* }" ]; then others+=("${pair%% *}"); fi
done
for model in $MODELS; do
  suffix=-$model precision=fp32 more=()
  case $model in
    plain) suffix="" ;;
    as-released) more=(--as-released) ;;
    bf16) precision=bf16 ;;
    paper) more=(--variant paper) ;;
    *) echo "$0: MODELS: $model is unknown" >&2; exit 2 ;;
  esac
  learn_and_score visa 1 mvtec-ad "${others[@]}"
  learn_and_score mvtec-ad 2 visa
done
run adcli evaluate "$V/scores.parquet" --maps "$V/maps.parquet" --manifest "$L/manifest.parquet" --pixel-size "$PIXELS" \
  --pro-200 --workers "$JOBS" --out "$V/metrics.parquet" --tables "$V/tables" --report "$V/report.html" --overwrite
echo "report: $V/report.html"
