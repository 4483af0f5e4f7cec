#!/usr/bin/env bash
#SBATCH --requeue --open-mode=append
# What pipelines/slurm/submit.sh submits: one command, in one task of an array its shard. Failed rows (exit code 3) are
# tried once more, and do not stop what comes after. GRACE seconds before the time limit, and when the task is preempted,
# the command is asked to end (it writes what it has in hand), and the task goes back into the queue.
set -uo pipefail
export PATH="${BIN:-.venv/bin}:$PATH"
unset SUBMIT_AFTER
cores=${SLURM_CPUS_PER_TASK:-1}
threads=$cores
kind=$1 stopping="" child=""
shift
me=$SLURM_JOB_ID  # in an array the number of one of its tasks is that of the array, too: 7_3 is the task alone
if [ -n "${SLURM_ARRAY_TASK_ID-}" ]; then me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi

case $kind in
  shard) command=("$@" --shard slurm) ;;
  training)
    command=("$@") each=$((TRAIN_GPUS > 1 ? TRAIN_GPUS : 1))
    threads=$((cores > each ? cores / each : 1))
    if [ "$((SLURM_NNODES * each))" -gt 1 ]; then
      # This runs on the first node, where all meet. Of the job's cores srun would take one, were it not told.
      command=(srun --kill-on-bad-exit=1 --ntasks-per-node=1 --cpus-per-task="$cores"
        python -m torch.distributed.run --nnodes "$SLURM_NNODES"
        --nproc_per_node "$each" --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID"
        --rdzv_endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 40000))" -m "$@")
    fi ;;
  *) command=("$@") ;;
esac
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}

stop() {
  stopping=1
  kill -TERM "$child" 2> /dev/null
}
trap stop TERM

attempt() {
  if [ -n "$stopping" ]; then code=143; return; fi
  "${command[@]}" &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done  # the trap ended the first wait
}

echo "$(date '+%F %T') job $me on $(hostname): ${command[*]}"
attempt
if [ $code -eq 3 ]; then
  echo "$(date '+%F %T') failed rows are tried once more"
  attempt
fi
echo "$(date '+%F %T') job $me ended with exit code $code${stopping:+ after SIGTERM}"
case $code in
  0) exit 0 ;;
  3) exit 0 ;;  # failed rows stay in the table, with their errors, and in the report
esac
# scancel asks to end, too: then the job is not running any more, as Slurm sees it, and stays cancelled.
if [ -n "$stopping" ] && [ "$(squeue --noheader --jobs="$me" --format=%T)" = RUNNING ]; then
  echo "$(date '+%F %T') job $me goes back into the queue"
  scontrol requeue "$me"
fi
exit "$code"
