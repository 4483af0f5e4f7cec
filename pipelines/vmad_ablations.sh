#!/usr/bin/env bash
# VMAD's Table III (modules) with Figures 9 and 10 or, with TABLE=4, Table IV (patches per image), with TABLE=5, Table V
# (projectors, with tokens per second). Run pipelines/vmad.sh first, for the manifests. Run it in the project's root;
# settings are environment variables:
#
#   TABLE=5 VMAD_ON=runs/vmad-llava-1.5-7b-hf/riad-whole.parquet \
#     VMAD_TO=runs/vmad-llava-1.5-7b-hf/manifest.parquet/mvtec-ad pipelines/vmad_ablations.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${TABLE:=3}"                              # of the paper: 3, 4 or 5
: "${VMAD_ON:=}"                             # manifest to train on
: "${VMAD_TO:=}"                             # manifest to test on
: "${LLAVA:=llava-hf/llava-1.5-7b-hf}"       # the multimodal model: directory or hub id
: "${SAM:=facebook/sam-vit-huge}"            # the mask decoder's model: directory or hub id
: "${GPUS:=1}"                               # of this machine, for training
: "${VMAD_TRAIN:=}"                          # further options of the training
: "${VMAD_SCORE:=}"                          # further options of the scoring
: "${SEED:=0}"                               # of the training
: "${JOBS:=2}"                               # processes that evaluate pixels
by_settings=$(folder runs/vmad "${LLAVA#llava-hf/}" "" "sam $SAM" "sam facebook/sam-vit-huge" "train $VMAD_TRAIN" \
  "train " "score $VMAD_SCORE" "score " "seed $SEED" "seed 0")
: "${VM:=$by_settings}"  # folder for everything, named by the settings that are not the default
need "give the manifests VMAD_ON and VMAD_TO" "$VMAD_ON" "$VMAD_TO"
case $TABLE in
  3) name=ablate-vmad rows='"neither --projector=mlp --no-dssl" "dssl --projector=mlp" "ltc --no-dssl" ltc-dssl' ;;
  5) name=ablate-vmad-projectors rows='"ltc-coarse --projector=ltc-coarse" "ltc-last --projector=ltc-last" ltc
       "mlp --projector=mlp" "average-pooling --projector=average-pooling" "resampler --projector=resampler"
       "ldp-v2 --projector=ldp-v2"' ;;
  4) name=ablate-vmad-patches rows='"boxes-4 --boxes=4" "boxes-8 --boxes=8" "boxes-16 --boxes=16" boxes-32
       "boxes-64 --boxes=64" "boxes-128 --boxes=128" "boxes-256 --boxes=256"' ;;
  *) echo "$0: TABLE is 3, 4 or 5" >&2; exit 2 ;;
esac
: "${VMAD_ROWS:=$rows}"    # rows, each in quotes: its name, and the options of its training
A=$(folder "$VM/$name" "on ${VMAD_ON#"$VM/"}" "" "to ${VMAD_TO#"$VM/"}" "")
declare -a rows="($VMAD_ROWS)" train="($VMAD_TRAIN)" score="($VMAD_SCORE)"
learner_on "$GPUS"

for row in "${rows[@]}"; do
  read -ra options <<< "$row"
  name=vmad-${options[0]}
  run "${learner[@]}" finetune-mllm "$VMAD_ON" --method vmad --llava "$LLAVA" --sam "$SAM" "${options[@]:1}" \
    "${train[@]}" --seed "$SEED" --out "$A/$name.parquet"
  run adcli score "$VMAD_TO" --method vmad --name "$name" --checkpoint "$A/$name.parquet" "${score[@]}" \
    --out "$A/scores.parquet/$name" --maps "$A/maps.parquet/$name"
done
if [[ $TABLE = 3 && " ${rows[*]} " == *" ltc --no-dssl "* && ${rows[-1]} = ltc-dssl ]]; then  # Figures 9 and 10
  run python -m pipelines.vmad_figures "$VMAD_TO" "$A/figures" "$A/vmad-ltc-dssl.parquet" "$A/vmad-ltc.parquet" ||
    echo "$0: no Figures 9 and 10" >&2
fi
run adcli evaluate "$A/scores.parquet" --maps "$A/maps.parquet" --manifest "$VMAD_TO" --workers "$JOBS" \
  --out "$A/metrics.parquet" --tables "$A/tables" --report "$A/report.html" --overwrite
echo "report: $A/report.html"
