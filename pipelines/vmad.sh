#!/usr/bin/env bash
# VMAD: one model is trained on 16 of RIAD's objects and tested on the other 8 (Table II), one on all of RIAD and tested
# on the other data sets whose roots are given (Table I). A demo without data sets and downloads is
# pipelines/vmad_demo.sh. Run it in the project's root; settings are environment variables:
#
#   RIAD_ROOT=/data/RIAD MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA WFDD_ROOT=/data/WFDD GPUS=8 pipelines/vmad.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${RIAD_ROOT:=}"                            # RIAD
: "${RIAD_TEXTS=$RIAD_ROOT}"                  # its question files; empty = none
: "${MVTEC_ROOT:=}"                           # MVTec AD
: "${VISA_ROOT:=}"                            # VisA
: "${WFDD_ROOT:=}"                            # WFDD
: "${LLAVA:=llava-hf/llava-1.5-7b-hf}"        # the multimodal model: directory or hub id
: "${SAM:=facebook/sam-vit-huge}"             # the mask decoder's model: directory or hub id
: "${LAST_LAYER:=}"                           # yes = Table I's VMAD°, too: a second training
: "${GPUS:=1}"                                # of this machine, for training
: "${VMAD_TRAIN:=}"                           # further options of the training
: "${VMAD_SCORE:=}"                           # further options of the scoring
: "${SEED:=0}"                                # of the split and of the training
: "${JOBS:=2}"                                # processes that evaluate pixels
by_settings=$(folder runs/vmad "${LLAVA#llava-hf/}" "" "sam $SAM" "sam facebook/sam-vit-huge" \
  "texts ${RIAD_TEXTS:-none}" "texts ${RIAD_ROOT:-none}" "train $VMAD_TRAIN" "train " "score $VMAD_SCORE" "score " \
  "seed $SEED" "seed 0")
: "${VM:=$by_settings}"  # folder for everything, named by the settings that are not the default
need "give RIAD_ROOT, or run pipelines/vmad_demo.sh" "$RIAD_ROOT"
declare -a train="($VMAD_TRAIN)" score="($VMAD_SCORE)"
learner_on "$GPUS"
texts=(${RIAD_TEXTS:+--questions "$VM/riad-questions.parquet"})

learn() {   # manifest, where the model goes, further options
  run "${learner[@]}" finetune-mllm "$1" --method vmad --llava "$LLAVA" --sam "$SAM" "${texts[@]}" "${train[@]}" \
    "${@:3}" --seed "$SEED" --out "$2"
}
score() {   # data set, model, name
  run adcli score "$VM/manifest.parquet/$1" --method vmad --name "$3" --checkpoint "$2" "${score[@]}" \
    --out "$VM/scores.parquet/$1${3#vmad}" --maps "$VM/maps.parquet/$1${3#vmad}"
}
index() {   # data set, root; empty = not given
  if [ -z "$2" ]; then return; fi
  run adcli data index "$1" "$2" --out "$VM/manifest.parquet/$1"
  others+=("$1")
}

run adcli data index riad "$RIAD_ROOT" --masks "$VM/riad-masks" --test-objects 8 --seed "$SEED" \
  --out "$VM/manifest.parquet/riad"
run adcli data index riad "$RIAD_ROOT" --masks "$VM/riad-masks" --test-objects 0 --seed "$SEED" \
  --out "$VM/riad-whole.parquet"
others=()
index mvtec-ad "$MVTEC_ROOT"
index visa "$VISA_ROOT"
index wfdd "$WFDD_ROOT"
if [ -n "$RIAD_TEXTS" ]; then
  run adcli data import-questions "$RIAD_TEXTS" --format riad --manifest "$VM/riad-whole.parquet" \
    --out "$VM/riad-questions.parquet"
fi

learn "$VM/manifest.parquet/riad" "$VM/trained-on-16.parquet"
score riad "$VM/trained-on-16.parquet" vmad
if [ ${#others[@]} -gt 0 ]; then learn "$VM/riad-whole.parquet" "$VM/trained-on-riad.parquet"; fi
for set in "${others[@]}"; do score "$set" "$VM/trained-on-riad.parquet" vmad; done
if [ "$LAST_LAYER" = yes ] && [ ${#others[@]} -gt 0 ]; then
  learn "$VM/riad-whole.parquet" "$VM/trained-on-riad-last.parquet" --projector ltc-last
  for set in "${others[@]}"; do score "$set" "$VM/trained-on-riad-last.parquet" vmad-last; done
fi
run adcli evaluate "$VM/scores.parquet" --maps "$VM/maps.parquet" --manifest "$VM/manifest.parquet" \
  --workers "$JOBS" --out "$VM/metrics.parquet" --tables "$VM/tables" --report "$VM/report.html" --seed "$SEED" \
  --overwrite
echo "report: $VM/report.html"
