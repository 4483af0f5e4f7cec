#!/usr/bin/env bash
# SAGE's Table 3 (six rows), Table 1's InternVL2 (sft), and Figure 7 (fact sentences, patches), all asked in one way.
# Run pipelines/sage.sh first, for questions, facts, judgements and the SFE model. Settings are variables:
#
#   SWEEPS= ABLATE_FROM=runs/sage TEST_MANIFEST=runs/mpdd.parquet TEST_QUESTIONS=runs/q.parquet JUDGE=gpt-4o \
#     JUDGING="--engine server --base-url https://api.openai.com/v1" pipelines/sage_ablations.sh
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh
# shellcheck source=pipelines/controls/before_sage.sh
. pipelines/controls/before_sage.sh

: "${ABLATE_FROM:=runs/sage}"          # folder that pipelines/sage.sh wrote
: "${TEST_MANIFEST:=}"                 # images of the test questions, as for pipelines/sage.sh
: "${TEST_QUESTIONS:=}"                # questions about them, as for pipelines/sage.sh
: "${L:=runs/lvlm}"                    # folder with the manifests to learn from
: "${ABLATE_ON:=$L/manifest.parquet/mvtec-ad/original}"   # manifest of SFE
: "${ABLATE_TO:=$L/manifest.parquet/visa/original}"       # manifest of E-DPO
: "${BASE:=internvl3}"                 # the model that is fine-tuned
: "${JUDGE:=}"                         # gives the marks of Score; words = a comparison of words
: "${JUDGING:=}"                       # how the judge is run: JUDGING="--engine server --base-url ..."
: "${ASKING:=}"                        # how the base writes facts: ASKING="--engine vllm"
: "${WORKERS:=0}"                      # threads that decode images for facts; 0 = one per core
: "${N:=20}"                           # facts per image, as for pipelines/sage.sh
: "${CHOOSE:=generate}"                # how every row chooses: generate, likelihood or prefix
: "${SHOTS:=0}"                        # Table 3 is zero-shot
: "${SWEEPS=--sentences=1 --sentences=5 --sentences=10 --patches=10 --patches=20 --patches=50}"  # an SFE with each
: "${GPUS:=1}"                         # of this machine, for training
: "${SFE:=}"                           # further options of SFE's trainings
: "${EDPO:=}"                          # further options of the preference trainings
: "${SEED:=0}"                         # of every stage
need "give TEST_MANIFEST and TEST_QUESTIONS (adcli data import-questions --help)" "$TEST_MANIFEST" "$TEST_QUESTIONS"
need "give JUDGE, with its engine and address in JUDGING (JUDGE=words compares words)" "$JUDGE"
G=$ABLATE_FROM
A=$(folder "$G/ablation" "on ${TEST_QUESTIONS%.parquet}" "" "choose $CHOOSE" "choose generate" \
  "shots $SHOTS" "shots 0" "sfe $SFE" "sfe " "edpo $EDPO" "edpo " "seed $SEED" "seed 0" \
  "asking $ASKING" "asking " "facts $N" "facts 20")
declare -a asking="($ASKING)" sfe="($SFE)" edpo="($EDPO)" judging="($JUDGING)" sweeps="($SWEEPS)"
learner_on "$GPUS"
facts=$A/facts.parquet

enhance() {   # name, options
  run "${learner[@]}" finetune-mllm "$ABLATE_ON" --method sage-sfe --questions "$G/questions.parquet/mvtec-ad" \
    --facts "$G/facts.parquet/mvtec-ad" --base "$BASE" "${@:2}" "${sfe[@]}" --seed "$SEED" --out "$A/$1.parquet"
}
align() {   # name, options
  run "${learner[@]}" finetune-mllm "$ABLATE_TO" --method sage-edpo --questions "$G/questions.parquet/visa" \
    --judgements "$G/judged-choices.parquet" "${@:2}" "${edpo[@]}" --seed "$SEED" --out "$A/$1.parquet"
}
row() {   # name, options; replies that name no choice are a result, too, however many
  run adcli score "$TEST_MANIFEST" --method sage --questions "$TEST_QUESTIONS" --choose "$CHOOSE" --seed "$SEED" \
    --facts "$facts" "${@:2}" --shots "${AT:-$SHOTS}" --name "$1/${AT:-$SHOTS}-shot" --max-errors 0 \
    --out "$A/answers.parquet/$1"
}

try_choosing "$TEST_QUESTIONS"
try_judge "$ABLATE_TO" "$G/questions.parquet/visa" "$A/judge-trial.parquet"
run adcli caption "$TEST_MANIFEST" --questions "$TEST_QUESTIONS" --vlm "$BASE" --prompt sage/facts --samples "$N" \
  --temperature 0.9 --seed "$SEED" --workers "$WORKERS" --out "$facts" "${asking[@]}"
enhance sft --fusion none
enhance fact-hard --fusion text
enhance fact-fe
align dpo --base "$BASE" --eta 0
align sfe-dpo --checkpoint "$A/fact-fe.parquet" --facts "$G/facts.parquet/visa" --eta 0
align full --checkpoint "$A/fact-fe.parquet" --facts "$G/facts.parquet/visa"
row baseline --base "$BASE"
for name in sft fact-hard fact-fe dpo sfe-dpo full; do row $name --checkpoint "$A/$name.parquet"; done
for option in "${sweeps[@]}"; do   # one-shot, as the figure
  name=figure7$(tr '=' - <<< "${option#-}")
  enhance "$name" "$option"
  AT=1 row "$name" --checkpoint "$A/$name.parquet"
done
run adcli score "$TEST_MANIFEST" --method mle --questions "$TEST_QUESTIONS" --answers "$A/answers.parquet" \
  --judge "$JUDGE" "${judging[@]}" --out "$A/judged.parquet"
run adcli evaluate --questions "$TEST_QUESTIONS" --answers "$A/answers.parquet" --judgements "$A/judged.parquet" \
  --manifest "$TEST_MANIFEST" --out "$A/metrics.parquet" --tables "$A/tables" --report "$A/report.html" --overwrite
echo "report: $A/report.html"
