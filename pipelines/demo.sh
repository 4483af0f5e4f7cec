#!/usr/bin/env bash
# A first look, on pictures that adcli renders itself: no GPU, no data, no downloads, some minutes on two cores.
# `inspect` finds scratches and spots on metal surfaces; VID-AD's method finds scenes that break a rule, in two
# scenarios. Run it in the project's root.
set -euo pipefail
# shellcheck source=pipelines/common.sh
. pipelines/common.sh

: "${S:=runs/demo-surfaces}"  # folder for the surfaces and what is found on them
: "${V:=runs/demo-vidad}"     # folder for the scenes

run adcli data synth surfaces --out "$S/pictures" --overwrite
run adcli inspect --good "$S/pictures/good" --test "$S/pictures/new" --out "$S/results" --overwrite
VIDAD_ROOT="" RUN=$V SCENARIOS=fruits,sticks CONDITIONS=white_bg SIZE=320 pipelines/vidad.sh

echo
echo "The surfaces and the scenes are made up: the figures say that this works here, and nothing of your pictures."
if [ -e "$S/results/tables/defects.csv" ]; then
  sed -n 's/^.*,all,all,\([a-z]*\),"\(.*\)",.*/  \1 against good surfaces: AUROC \2/p' "$S/results/tables/defects.csv"
fi
echo "Look at $S/results/report.html (the surfaces) and $V/report.html (the scenes)."
echo "Next, on your own pictures, a folder of good ones and a folder of new ones:"
case $PATH in .venv/bin:*) echo "  source .venv/bin/activate" ;; esac
echo "  adcli inspect --good photos/normal --test photos/new --out runs/photos"
