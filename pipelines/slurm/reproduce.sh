#!/usr/bin/env bash
# Submit a whole pipeline to Slurm: every command of pipelines/PAPER.sh is a job that waits for the one before it. Run
# it in the project's root. Settings are environment variables, those of pipelines/PAPER.sh and of
# pipelines/slurm/submit.sh (--help lists them). Submitted again, it submits what is not in the queue; what is finished
# says `up to date`.
#
#   PARTITION=gpu ACCOUNT=me MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA pipelines/slurm/reproduce.sh visualad
set -euo pipefail
if [ $# -ne 1 ] || [ ! -f "pipelines/$1.sh" ] || [ "$1" = common ]; then
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
SUBMIT_AFTER=$(mktemp)
trap 'rm -f "$SUBMIT_AFTER"' EXIT
export SUBMIT_AFTER CHECK="" GPUS=1  # vidad.sh's CHECK reads tables that are not there yet; TRAIN_GPUS in place of GPUS
if [ "$1" = vidad ] || [ "$1" = vidad_ablations ]; then
  export JOBS=1   # trainings are shards of the array
else
  export JOBS=${CPUS:-8}
fi
"pipelines/$1.sh"
