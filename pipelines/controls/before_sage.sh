# shellcheck shell=bash
# Read by SAGE's scripts: what would stop them after hours of training is found out before it.
# shellcheck disable=SC2154  # JUDGE and CHOOSE are the scripts' settings, judging is JUDGING as an array

# judge_choices MANIFEST QUESTIONS OUT [OPTION]...: marks for the questions' own choices.
judge_choices() {
  run adcli score "$1" --method mle --questions "$2" --judge "$JUDGE" "${judging[@]}" --out "$3" "${@:4}"
}

# try_judge MANIFEST QUESTIONS OUT: one choice judged, and a stop where the judge cannot be asked.
try_judge() {
  judge_choices "$@" --limit 1 --overwrite
  run python -m pipelines.first_row "$3" "JUDGE=$JUDGE"
}

# try_choosing QUESTIONS: a stop where CHOOSE is no way to choose, or none for these questions.
try_choosing() { run python -m pipelines.sage_choosing "$1" "$CHOOSE"; }
