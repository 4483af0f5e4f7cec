# shellcheck shell=bash
# Read by pipelines/vidad.sh with CHECK=yes: its figures beside their targets, what the look of rendered scenes gives away
# to PaDiM and PatchCore, and how often `scene` is right on scenes of a seed that it was not tuned on.
if [ -z "$VIDAD_ROOT" ]; then
  for model in padim patchcore; do
    run adcli score "$RUN/manifest.parquet" --method "anomalib/$model" --splits test \
      --out "$RUN/check/vision.parquet/$model" --seed "$SEED" --overwrite --max-errors "$MAX_ERRORS"
  done
fi
run python -m benchmarks.vidad_check "$RUN"
only=(--scenarios "$SCENARIOS" ${CONDITIONS:+--conditions "$CONDITIONS"})
run adcli data synth vidad --out "$RUN/check/scenes" "${only[@]}" --size "$SIZE" --seed 2026 --overwrite
run adcli data index vidad "$RUN/check/scenes" --out "$RUN/check/manifest.parquet" --overwrite
run adcli caption "$RUN/check/manifest.parquet" --out "$RUN/check/captions.parquet" --shard 0/8 --overwrite
echo "an eighth of the scenes of a seed that the captioner was not tuned on:"
run python -m benchmarks.caption_accuracy "$RUN/check/captions.parquet" "$RUN/check/scenes/truth.parquet"
