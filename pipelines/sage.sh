#!/usr/bin/env bash
# SAGE: facts, preference optimisation, judged answers. SFE learns from MVTec AD, E-DPO from VisA, as in the paper;
# their questions come from templates, not from AD-PL, which `data import-questions` reads. A demo without data sets and
# downloads is pipelines/sage_demo.sh. Run it in the project's root; settings are environment variables:
#
#   MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA GPUS=8 JUDGE=gpt-4o JUDGING="--engine server --base-url http://..." \
#     TEST_MANIFEST=runs/mpdd.parquet TEST_QUESTIONS=runs/mpdd-questions.parquet pipelines/sage.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh
# shellcheck source=pipelines/controls/before_sage.sh
. pipelines/controls/before_sage.sh

: "${MVTEC_ROOT:=}"          # MVTec AD
: "${VISA_ROOT:=}"           # VisA
: "${TEST_MANIFEST:=}"       # images of the test questions
: "${TEST_QUESTIONS:=}"      # what `data import-questions` made of MANTA, or `data questions` of MPDD
: "${BASE:=internvl3}"       # the model that is fine-tuned
: "${JUDGE:=}"               # gives the marks; words = a comparison of words, no substitute for a model
: "${JUDGING:=}"             # how the judge is run: JUDGING="--engine server --base-url http://..."
: "${ASKING:=}"              # how the base is run: ASKING="--engine vllm"
: "${GPUS:=1}"               # of this machine, for training
: "${WORKERS:=0}"            # threads that decode images for facts and answers; 0 = one per core
: "${CHOOSE:=generate}"      # how every model chooses: generate, likelihood or prefix
: "${N:=20}"                 # facts per image
: "${SFE:=}"                 # further options of SFE's training
: "${EDPO:=}"                # further options of E-DPO's training
: "${SEED:=0}"               # of every stage
: "${L:=runs/lvlm}"          # folder with the manifests, which lvlm.sh shares
by_settings=$(folder runs/sage "$BASE" "" "judge $JUDGE" "judge words" "asking $ASKING" "asking " \
  "judging $JUDGING" "judging " "facts $N" "facts 20" "sfe $SFE" "sfe " "edpo $EDPO" "edpo " \
  "seed $SEED" "seed 0")
: "${G:=$by_settings}"  # folder for everything, named by the settings that are not the default; tests in one of theirs
need "SFE learns from one, E-DPO from the other: give MVTEC_ROOT and VISA_ROOT" "$MVTEC_ROOT" "$VISA_ROOT"
need "give TEST_MANIFEST and TEST_QUESTIONS (adcli data import-questions --help)" "$TEST_MANIFEST" "$TEST_QUESTIONS"
need "give JUDGE, with its engine and address in JUDGING (JUDGE=words compares words)" "$JUDGE"
TESTED=$(folder "$G/tested" "on ${TEST_QUESTIONS%.parquet}" "" "choose $CHOOSE" "choose generate")
declare -a asking="($ASKING)" judging="($JUDGING)" sfe="($SFE)" edpo="($EDPO)"
learner_on "$GPUS"
mvtec=$L/manifest.parquet/mvtec-ad/original visa=$L/manifest.parquet/visa/original
choices=("$visa" "$G/questions.parquet/visa" "$G/judged-choices.parquet")
facts_of() {   # manifest, questions, where the facts go: of the images that are asked about
  run adcli caption "$1" --questions "$2" --vlm "$BASE" --prompt sage/facts --samples "$N" --temperature 0.9 \
    --seed "$SEED" --workers "$WORKERS" --out "$3" "${asking[@]}"
}
ask() {   # name, options of the model: rows choose in one way; one that never does is a row, too
  for shots in 0 1; do
    run adcli score "$TEST_MANIFEST" --method sage --facts "$TESTED/facts.parquet" --questions "$TEST_QUESTIONS" \
      "${@:2}" --choose "$CHOOSE" --shots $shots --name "sage-$1/$shots-shot" --seed "$SEED" \
      --max-errors 0 --out "$TESTED/answers.parquet/$1-$shots"
  done
}

try_choosing "$TEST_QUESTIONS"
run adcli data index mvtec-ad "$MVTEC_ROOT" --out "$mvtec" --overwrite
run adcli data index visa "$VISA_ROOT" --out "$visa" --overwrite
run adcli data questions "$mvtec" --out "$G/questions.parquet/mvtec-ad" --seed "$SEED"
run adcli data questions "$visa" --out "$G/questions.parquet/visa" --seed "$SEED"
try_judge "${choices[@]}"
facts_of "$mvtec" "$G/questions.parquet/mvtec-ad" "$G/facts.parquet/mvtec-ad"
facts_of "$visa" "$G/questions.parquet/visa" "$G/facts.parquet/visa"
facts_of "$TEST_MANIFEST" "$TEST_QUESTIONS" "$TESTED/facts.parquet"

run "${learner[@]}" finetune-mllm "$mvtec" --method sage-sfe --questions "$G/questions.parquet/mvtec-ad" \
  --facts "$G/facts.parquet/mvtec-ad" --base "$BASE" "${sfe[@]}" --seed "$SEED" --out "$G/sfe.parquet" --overwrite
judge_choices "${choices[@]}"
run "${learner[@]}" finetune-mllm "$visa" --method sage-edpo --questions "$G/questions.parquet/visa" \
  --facts "$G/facts.parquet/visa" --judgements "$G/judged-choices.parquet" --checkpoint "$G/sfe.parquet" \
  "${edpo[@]}" --seed "$SEED" --out "$G/edpo.parquet" --overwrite

ask base --base "$BASE"
for model in sfe edpo; do ask $model --checkpoint "$G/$model.parquet"; done
run adcli score "$TEST_MANIFEST" --method mle --questions "$TEST_QUESTIONS" --answers "$TESTED/answers.parquet" \
  --judge "$JUDGE" "${judging[@]}" --out "$TESTED/judged.parquet/answers" --overwrite
run adcli evaluate --questions "$TEST_QUESTIONS" --answers "$TESTED/answers.parquet" \
  --judgements "$TESTED/judged.parquet" --manifest "$TEST_MANIFEST" --out "$TESTED/metrics.parquet" \
  --tables "$TESTED/tables" --report "$TESTED/report.html" --overwrite
echo "report: $TESTED/report.html"
