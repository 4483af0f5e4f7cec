# shellcheck shell=bash
# What the pipelines share. Each sources this file from the project's root (bash 4.4 or newer).
#
# BIN: folder of `adcli` and `python`; without it those of the active environment are used.
export PATH="${BIN:-.venv/bin}:$PATH"

# --help prints the head comment of the script, and its settings with their defaults.
if [ "${1-}" = --help ]; then
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  echo
  sed -n 's/^: "${\([A-Z0-9_]*\):\{0,1\}=\(.*\)}" *# /  \1=\2  # /p' "$0"
  exit
elif [ $# -gt 0 ]; then
  echo "$0: settings are environment variables, $0 --help lists them" >&2
  exit 2
fi

# run COMMAND...: failed rows (exit code 3) stay in the artifact and in the report, they do not stop the pipeline.
# Nothing new starts once the script itself was killed. On Slurm (pipelines/slurm/reproduce.sh) the command is submitted,
# to start when the one before it has ended.
run() {
  local code=0
  kill -0 $$ 2>/dev/null || exit 143
  if [ -n "${SUBMIT_AFTER-}" ]; then pipelines/slurm/submit.sh "$@"; return; fi
  echo "$*"
  "$@" || code=$?
  [ $code -eq 3 ] || return $code
}
export -f run

# folder BASE [SETTING DEFAULT]...: a folder of its own for every choice of settings, which is BASE when all are at
# their defaults: folder runs/lvlm "seed 1" "seed 0" "ask --shots 2" "ask " -> runs/lvlm-seed_1-ask-shots_2
folder() {
  local base=$1 name="" tag
  shift
  while [ $# -gt 0 ]; do
    if [ "$1" != "$2" ]; then
      tag=${1%/}
      tag=${tag// --/-}
      tag=${tag//[\/,]/-}
      name+=-${tag//[^[:alnum:].-]/_}
    fi
    shift 2
  done
  if [ ${#name} -gt 150 ]; then name=${name:0:130}-$(cksum <<< "$name" | cut -d ' ' -f 1); fi
  echo "$base$name"
}

# need MESSAGE VALUE...: stop unless every value is given.
need() {
  local message=$1 value
  shift
  for value in "$@"; do
    if [ -z "$value" ]; then echo "$0: $message" >&2; exit 2; fi
  done
}

# learner_on GPUS: the array `learner`, with which a training on so many GPUs of this machine begins.
learner_on() {
  learner=(adcli)
  if [ "$1" -ne 1 ]; then learner=(python -m torch.distributed.run --nproc_per_node "$1" -m adcli); fi
}

# each_seed FOLDER [SETTING=VALUE]... -- [SETTING=VALUE]...: the script itself for each of SEEDS, in FOLDER/seed-N, with
# these settings, those after -- from the second seed on; then its tables with mean and standard deviation of every cell.
each_seed() {
  local to=$1 both=() later=() first=1 setting seed seeds
  for setting in "${@:2}"; do
    if [ "$setting" = -- ]; then first=""; elif [ -n "$first" ]; then both+=("$setting"); else later+=("$setting"); fi
  done
  IFS=', ' read -ra seeds <<< "$SEEDS"
  for seed in "${seeds[@]}"; do
    env SEEDS= SEED="$seed" L="$to/seed-$seed" "${both[@]}" "$BASH" "$0"
    both+=("${later[@]}") later=()
  done
  run python -m pipelines.over_seeds "${seeds[@]/#/$to/seed-}" --tables "$to/tables"
}
