#!/usr/bin/env bash
# VID-AD on Slurm, from the images to the tables, with the settings of pipelines/vidad.sh and pipelines/slurm/submit.sh:
#
#   PARTITION=gpu ACCOUNT=me SHARDS=16 VIDAD_ROOT=/data/VID-AD ASK="--engine vllm" pipelines/slurm/reproduce-vidad.sh
#   SHARD_GPUS=0 SHARDS=4 SCENARIOS=fruits pipelines/slurm/reproduce-vidad.sh    # rendered scenes, without GPUs
set -euo pipefail
exec "${0%/*}/reproduce.sh" vidad
