#!/usr/bin/env bash
# LVLM: one normal reference image, one question to a large model. MVTec AD and VisA where their roots are given, in
# the paper's setting (Tables 1-5, Figure 7); without roots rendered scenes and, where they are, the magnetic tiles.
# Run it in the project's root; settings are environment variables:
#
#   MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA VLM=qwen2-vl-72b-awq pipelines/lvlm.sh
#   PAPER=1 SEEDS=0,1,2 MVTEC_ROOT=...    # Tables 8 and 9, too, and means and standard deviations over three runs
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${MVTEC_ROOT:=}"                            # MVTec AD
: "${VISA_ROOT:=}"                             # VisA
: "${TILES:=../shared/data/magnetic-tile}"     # tiles of the demo
: "${VLM:=scene}"                              # the model that is asked
: "${ASK:=}"                                   # how it is asked and run: ASK="--engine vllm --shots 2"
: "${PAPER:=}"                                 # 1 = ask about the training images once, for Tables 8 and 9
: "${KINDS=rotate90 pad20 timestamp}"         # augmentations that are asked about, too
: "${SIZE:=360}"                               # side of the rendered scenes, px
: "${SEED:=0}"                                 # of the references and of the answers
: "${SEEDS:=}"                                 # several, 0,1,2: a folder for each, and tables over all
: "${VARIANTS=one-shot zero-shot-description zero-shot}"      # Table 5's further rows, of MVTec AD alone
real=$MVTEC_ROOT$VISA_ROOT base=runs/lvlm demo=()
if [ -n "$PAPER" ]; then need "PAPER=1 needs the paper's data: give MVTEC_ROOT or VISA_ROOT" "$real"; fi
if [ -z "$real" ]; then
  base=runs/lvlm-demo demo=("tiles $(basename "$TILES")" "tiles magnetic-tile" "size $SIZE" "size 360")
fi
by_settings=$(folder "$base" "$VLM" scene "${demo[@]}" "ask $ASK" "ask " "seed $SEED" "seed 0" "seeds $SEEDS" "seeds ")
: "${L:=$by_settings}"  # folder for everything, named by the settings that are not the default
: "${M:=$L}"                                   # folder of manifests and augmented images
# p(yes) is taken before temperature: another seed gives training images the same scores, so the first one asks.
if [ -n "$SEEDS" ]; then each_seed "$L" ${real:+M="$L/data"} -- PAPER=; exit; fi

declare -a ask="($ASK)"
case $VLM in
  qwen2-vl-72b-awq) ask=(--preset paper "${ask[@]}") ;;
  # The embedded engine costs nothing, compares two images, and has no use for the prompt: no variants.
  scene) PAPER=1 VARIANTS= ;;
esac

index() {   # name, layout, root
  sets+=("$1")
  run adcli data index "$2" "$3" --out "$M/manifest.parquet/$1/original" --overwrite
}
# Answers cost hours: a changed setting is an error that names it, not a reason to ask again.
ask_about() {   # data set, augmentation, variant, options of the variant
  run adcli score "$M/manifest.parquet/$1/$2" --method lvlm --vlm "$VLM" "${ask[@]}" "${@:4}" --seed "$SEED" \
    --out "$L/scores.parquet/$1/$2/$3"
}

sets=()
if [ -n "$MVTEC_ROOT" ]; then index mvtec-ad mvtec-ad "$MVTEC_ROOT"; fi
if [ -n "$VISA_ROOT" ]; then index visa visa "$VISA_ROOT"; fi
if [ -z "$real" ]; then
  run adcli data synth vidad --out "$L/scenes" --scenarios fruits,tapes,blocks --conditions white_bg \
    --size "$SIZE" --seed "$SEED" --overwrite
  index scenes vidad "$L/scenes"
  if [ -d "$TILES" ]; then index magnetic-tile magnetic-tile "$TILES"; fi
fi
run python -m pipelines.lvlm_questions "$M/manifest.parquet" --kinds "$KINDS" --variants "$VARIANTS" ${PAPER:+--train}
for set in "${sets[@]}"; do
  for kind in $KINDS; do
    run adcli data augment "$M/manifest.parquet/$set/original" --kind "$kind" --images "$M/augmented/$set" \
      --out "$M/manifest.parquet/$set/$kind" --overwrite
  done
  for kind in original $KINDS; do ask_about "$set" "$kind" one-shot-specific; done
  if [ -n "$PAPER" ]; then ask_about "$set" original one-shot-specific-train --splits train; fi
done
for variant in ${MVTEC_ROOT:+$VARIANTS}; do
  case $variant in
    one-shot) ask_about mvtec-ad original one-shot --shots 1 --prompt generic ;;
    zero-shot-description) ask_about mvtec-ad original zero-shot-description --shots 0 --prompt description ;;
    zero-shot) ask_about mvtec-ad original zero-shot --shots 0 --prompt generic ;;
    *) echo "$0: VARIANTS: $variant is unknown" >&2; exit 2 ;;
  esac
done
run adcli evaluate "$L/scores.parquet" --manifest "$M/manifest.parquet" --out "$L/metrics.parquet" \
  --tables "$L/tables" --report "$L/report.html" --seed "$SEED" --overwrite
echo "report: $L/report.html"
