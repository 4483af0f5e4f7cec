# shellcheck shell=bash
# Read by demos, whose tiny models train and score beside their controls.
#
# together LINE...: side by side, JOBS (2) at a time with one thread each, which is faster than in turn with all of them:
# a tiny model gains next to nothing from a second one. In turn where Slurm gets them, and on several GPUs, which each
# training takes for itself. Fails when one failed, after all have ended.
together() {
  local line pid pids=() code=0
  for line in "$@"; do
    if [ -n "${SUBMIT_AFTER-}" ] || [ "${GPUS:-1}" -ne 1 ]; then eval "$line"; continue; fi
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do sleep 0.2; done
    (OMP_NUM_THREADS=1 eval "$line" 2>&1 < /dev/null | cat) &   # lines instead of several progress bars
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  return $code
}
