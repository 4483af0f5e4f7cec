#!/usr/bin/env bash
# Submit one command to Slurm. A stage that takes --shard becomes an array, a training runs through torchrun over nodes,
# anything else is one job without a GPU. Run it in the project's root; settings are environment variables:
#
#   PARTITION=gpu ACCOUNT=me SHARDS=16 pipelines/slurm/submit.sh adcli caption m.parquet --engine vllm --out c.parquet
#   TRAIN_NODES=2 TRAIN_GPUS=8 pipelines/slurm/submit.sh adcli train-visualad m.parquet --out t.parquet
#
# What is in the queue already is not submitted again; what is finished ends at once. docs/cluster.md says more.
set -euo pipefail

: "${PARTITION:=}"           # of Slurm; empty = its default
: "${ACCOUNT:=}"             # of Slurm; empty = its default
: "${SHARDS:=16}"            # tasks of an array
: "${SHARD_GPUS:=1}"         # of each of them: one engine per GPU, or as many as --tensor-parallel
: "${TRAIN_NODES:=1}"        # of a training
: "${TRAIN_GPUS:=1}"         # of each of its nodes
: "${CPUS:=8}"               # of each task: images are decoded by them
: "${TIME:=24:00:00}"        # limit of each task, which goes back into the queue there and then goes on
: "${GRACE:=120}"            # seconds before it in which a task ends what it has in hand
: "${MORE:=}"                # more options of sbatch: MORE="--mem=64G --exclude=node7"
: "${LOGS:=runs/logs}"       # folder for a log of each task
: "${SUBMIT_AFTER:=}"        # file with the job that has to end well first; the new one takes its place

if [ $# -lt 2 ]; then
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  sed -n 's/^: "${\([A-Z_]*\):=\(.*\)}" *# /  \1=\2  # /p' "$0"
  exit $(($# == 0 ? 2 : 0))
fi
fail() { echo "${0##*/}: $*" >&2; exit 2; }
for name in SHARDS SHARD_GPUS TRAIN_NODES TRAIN_GPUS CPUS GRACE; do
  [[ ${!name} =~ ^[0-9]+$ ]] || fail "$name=${!name}: a whole number is expected"
done
# M, M:S, H:M:S, D-H, D-H:M and D-H:M:S are times, 0 is no limit; the rest sbatch knows, or says what is wrong.
if [[ $TIME =~ ^([0-9]+-)?[0-9]+(:[0-9]+)*$ ]]; then
  case $TIME in *-*) t=${TIME/-/:}:0:0 ;; *:*:*) t=0:$TIME ;; *) t=0:0:$TIME:0 ;; esac
  IFS=: read -r d h m s _ <<< "$t"
  seconds=$((((10#$d * 24 + 10#$h) * 60 + 10#$m) * 60 + 10#$s))
  if [ $seconds -gt 0 ] && [ $seconds -le "$GRACE" ]; then
    fail "TIME=$TIME is all GRACE=$GRACE: a task would be asked to end as it starts; give more time or less grace"
  fi
fi
(PATH=${BIN:-.venv/bin}:$PATH && command -v "$1" > /dev/null) ||
  fail "no $1 in ${BIN:-.venv/bin}: make setup, or name the environment's folder, BIN=\$VIRTUAL_ENV/bin"
read -ra more <<< "$MORE"
export TRAIN_GPUS  # for task.sh
options=(--export=ALL --cpus-per-task="$CPUS" --time="$TIME" --signal="B:TERM@$GRACE" --nodes=1 --ntasks=1)
options+=(--output="$LOGS/%x-%j.log")
if [ "${*: -2}" = "--shard 0/1" ]; then set -- "${@:1:$#-2}"; fi
case "$1 $2" in
  "adcli caption" | "adcli rewrite-negatives" | "adcli train-encoder" | "adcli score")
    kind=shard gpus=$SHARD_GPUS
    case "$*" in *" --shard"*) fail "--shard: tasks take their own, SHARDS=$SHARDS says how many there are" ;; esac
    case "$*" in *" --vlm scene"* | *" --rewriter rules"* | *" --judge words"*) gpus=0 ;; esac
    options+=(--array="1-$SHARDS" --output="$LOGS/%x-%A_%a.log") ;;
  "adcli train-visualad" | "adcli finetune-mllm")
    kind=training gpus=$TRAIN_GPUS
    options+=(--nodes="$TRAIN_NODES" --ntasks="$TRAIN_NODES" --ntasks-per-node=1) ;;
  *) kind=once gpus=0 ;;
esac
if [ "$gpus" -gt 0 ]; then options+=(--gres="gpu:$gpus"); fi

# The same command has the same name, by which it is found in the queue.
case "$1 $2" in
  "adcli data") name=data-$3 ;;
  "python -m") name=${3##*.} ;;
  *) name=$2 ;;
esac
name=$name-$(printf '%s\n' "$PWD" "$@" | cksum | cut -d ' ' -f 1)
job=$(squeue --noheader --user="$(id -un)" --name="$name" --states=PD,CF,R,S --format=%F | sort -n | tail -n 1)
if [ -n "$job" ]; then
  echo "in the queue as job $job: $*"
else
  if [ -s "$SUBMIT_AFTER" ]; then options+=(--dependency="afterok:$(cat "$SUBMIT_AFTER")" --kill-on-invalid-dep=yes); fi
  mkdir -p "$LOGS"
  job=$(sbatch --parsable --job-name="$name" ${PARTITION:+--partition="$PARTITION"} ${ACCOUNT:+--account="$ACCOUNT"} \
    "${options[@]}" "${more[@]}" pipelines/slurm/task.sh "$kind" "$@")
  job=${job%%;*}
  echo "job $job, $LOGS/$name-$job*: $*"
fi
if [ -n "$SUBMIT_AFTER" ]; then echo "$job" > "$SUBMIT_AFTER"; fi
