#!/usr/bin/env bash
# VID-AD's Table 7, the model that describes and rewrites, and rows for other text encoders. Each model and each encoder
# is a run of pipelines/vidad.sh in a folder of its own, whose settings hold here, too. Settings are variables:
#
#   VIDAD_ROOT=/data/VID-AD ASK="--engine vllm" pipelines/vidad_ablations.sh
#   VLMS=scene ENCODERS= SCENARIOS=fruits pipelines/vidad_ablations.sh    # on rendered scenes
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${VIDAD_ROOT:=}"        # the real data set; empty = rendered scenes, which only `scene` describes well
: "${VLMS:=qwen2-vl,llama-3.2-vision,llava-1.5-13b}"  # Table 7's models, each its own rewriter
: "${ENCODERS=sentence-transformers/all-MiniLM-L6-v2,roberta-base}"  # beside the first model's captions; empty = none
by_settings=$(folder runs/vidad-ablation "$(basename "$VIDAD_ROOT")" "" "${SCENARIOS:-}" "" "${CONDITIONS:-}" "" \
  "${ASK:-}" "" "${CAPTION:-}" "" "${REWRITE:-}" "" "${TRAIN:-}" "" "seed ${SEED:-0}" "seed 0")
: "${A:=$by_settings}"     # folder of all runs and of the table
export VIDAD_ROOT
IFS=', ' read -ra vlms <<< "$VLMS"
IFS=', ' read -ra encoders <<< "$ENCODERS"

for vlm in "${vlms[@]}"; do
  at=${vlm//\//_}
  VLM=$vlm NAME=text-knn/$vlm RUN=$A/$at SCORES=$A/scores.parquet/$at pipelines/vidad.sh
done
first=$A/${vlms[0]//\//_}
for encoder in "${encoders[@]}"; do   # captions and negatives are those of the first model
  at=${vlms[0]//\//_}-${encoder//\//_}
  VLM=${vlms[0]} ENCODER=$encoder NAME=text-knn/${vlms[0]}/$encoder RUN=$first TRAINED=$A/$at \
    SCORES=$A/scores.parquet/$at pipelines/vidad.sh
done
run adcli evaluate "$A/scores.parquet" --manifest "$first/manifest.parquet" --out "$A/metrics.parquet" \
  --tables "$A/tables" --report "$A/report.html" --seed "${SEED:-0}" --overwrite
echo "report: $A/report.html"
