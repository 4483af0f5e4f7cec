#!/usr/bin/env bash
# SAGE: facts, preference optimisation, judged answers. SFE learns from MVTec AD, E-DPO from VisA, as in the paper;
# their questions come from templates, not from AD-PL, which `data import-questions` reads. A demo without data sets and
# downloads is pipelines/sage_demo.sh. Run it in the project's root; settings are environment variables:
#
#   MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA BASE=OpenGVLab/InternVL3-8B-hf JUDGE=gpt-4o \
#     TEST_MANIFEST=runs/mpdd.parquet TEST_QUESTIONS=runs/mpdd-questions.parquet pipelines/sage.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${MVTEC_ROOT:=}"          # MVTec AD
: "${VISA_ROOT:=}"           # VisA
: "${TEST_MANIFEST:=}"       # images of the test questions
: "${TEST_QUESTIONS:=}"      # what `data import-questions` made of MANTA, or `data questions` of MPDD
: "${BASE:=internvl3}"       # the model that is fine-tuned
: "${JUDGE:=words}"          # gives the marks
: "${ASKING:=}"              # how the base is run: ASKING="--engine vllm"
: "${N:=20}"                 # facts per image
: "${SFE:=}"                 # further options of SFE's training
: "${EDPO:=}"                # further options of E-DPO's training
: "${SEED:=0}"               # of every stage
: "${L:=runs/lvlm}"          # folder with the manifests, which lvlm.sh shares
by_settings=$(folder runs/sage "$BASE" "" "judge $JUDGE" "judge words" "asking $ASKING" "asking " \
  "facts $N" "facts 20" "sfe $SFE" "sfe " "edpo $EDPO" "edpo " "seed $SEED" "seed 0")
: "${G:=$by_settings}"  # folder for everything, named by the settings that are not the default
need "SFE learns from one, E-DPO from the other: give MVTEC_ROOT and VISA_ROOT" "$MVTEC_ROOT" "$VISA_ROOT"
need "give TEST_MANIFEST and TEST_QUESTIONS (adcli data import-questions --help)" "$TEST_MANIFEST" "$TEST_QUESTIONS"
# Another test set is asked about without training anew.
TESTED=$(folder "$G/tested" "on ${TEST_QUESTIONS%.parquet}" "")
declare -a asking="($ASKING)" sfe="($SFE)" edpo="($EDPO)"
mvtec=$L/manifest.parquet/mvtec-ad/original visa=$L/manifest.parquet/visa/original

facts_of() {   # manifest, where the facts go
  run adcli caption "$1" --vlm "$BASE" --prompt sage/facts --samples "$N" --temperature 0.9 --seed "$SEED" \
    --out "$2" "${asking[@]}"
}
ask_model() {   # model, name of the answers, further options
  run adcli score "$TEST_MANIFEST" --method sage --facts "$TESTED/facts.parquet" --questions "$TEST_QUESTIONS" \
    --checkpoint "$G/$1.parquet" --out "$TESTED/answers.parquet/$2" "${@:3}"
}

run adcli data index mvtec-ad "$MVTEC_ROOT" --out "$mvtec" --overwrite
run adcli data index visa "$VISA_ROOT" --out "$visa" --overwrite
run adcli data questions "$mvtec" --out "$G/questions.parquet/mvtec-ad" --seed "$SEED"
run adcli data questions "$visa" --out "$G/questions.parquet/visa" --seed "$SEED"
facts_of "$mvtec" "$G/facts.parquet/mvtec-ad"
facts_of "$visa" "$G/facts.parquet/visa"
facts_of "$TEST_MANIFEST" "$TESTED/facts.parquet"

run adcli finetune-mllm "$mvtec" --method sage-sfe --questions "$G/questions.parquet/mvtec-ad" \
  --facts "$G/facts.parquet/mvtec-ad" --base "$BASE" "${sfe[@]}" --seed "$SEED" --out "$G/sfe.parquet" --overwrite
run adcli score "$visa" --method mle --questions "$G/questions.parquet/visa" --judge "$JUDGE" \
  --out "$G/judged-choices.parquet" --overwrite
run adcli finetune-mllm "$visa" --method sage-edpo --questions "$G/questions.parquet/visa" \
  --facts "$G/facts.parquet/visa" --judgements "$G/judged-choices.parquet" --checkpoint "$G/sfe.parquet" \
  "${edpo[@]}" --seed "$SEED" --out "$G/edpo.parquet" --overwrite

for shots in 0 1; do
  for model in sfe edpo; do
    ask_model $model $model-$shots --shots $shots --choose likelihood --name sage-$model/$shots-shot
  done
  run adcli score "$TEST_MANIFEST" --method vlm-qa --vlm "$BASE" --questions "$TEST_QUESTIONS" --shots $shots \
    --out "$TESTED/answers.parquet/plain-$shots" --seed "$SEED" "${asking[@]}"
  ask_model edpo said-$shots --shots $shots --seed "$SEED"
done
run adcli score "$TEST_MANIFEST" --method mle --questions "$TEST_QUESTIONS" --answers "$TESTED/answers.parquet" \
  --judge "$JUDGE" --out "$TESTED/judged.parquet/answers" --overwrite
run adcli evaluate --questions "$TEST_QUESTIONS" --answers "$TESTED/answers.parquet" \
  --judgements "$TESTED/judged.parquet" --manifest "$TEST_MANIFEST" --out "$TESTED/metrics.parquet" \
  --tables "$TESTED/tables" --report "$TESTED/report.html" --overwrite
echo "report: $TESTED/report.html"
