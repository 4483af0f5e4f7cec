# Set-up, checks and tests. The pipelines are scripts in pipelines/: a target that calls one takes its settings as
# variables (pipelines/vidad.sh --help lists them), such as
#
#   make reproduce-vidad SCENARIOS=fruits,sticks CONDITIONS=white_bg SEED=1

PYTHON   ?= python3
# An environment of your own (say, with vLLM): make BIN=$VIRTUAL_ENV/bin ...
BIN      ?= .venv/bin
READY    := $(if $(filter .venv/bin,$(BIN)),.venv/installed)
VLLM_BIN := .venv-vllm/bin
INSTALL   = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
REAL     := $(strip $(MVTEC_ROOT) $(VISA_ROOT))
export PYTHON BIN

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-fast test-vllm test-slurm test-ray clean-runs reproduce-vidad \
        reproduce-vidad-check ablate-vidad reproduce-tiles reproduce-lvlm reproduce-visualad ablate-visualad \
        reproduce-sage ablate-sage reproduce-vmad ablate-vmad ablate-vmad-projectors

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-24s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## the virtual environment .venv, which the other targets make, too
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -d .venv || $(PYTHON) -m venv .venv
	$(INSTALL) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(INSTALL) -e '.[models,finetune,server,baselines,test,dev]'
	touch $@

check: $(READY)  ## style, types, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py
test: $(READY); $(BIN)/python -m pytest -n 2 --dist worksteal  ## every test
test-fast: $(READY); $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"  ## all but the slow tests
.venv-vllm/installed: pyproject.toml constraints-vllm.txt .ci/vllm-environment; .ci/vllm-environment && touch $@
test-vllm: .venv-vllm/installed  ## the tests that need vLLM, with the real one
	ADCLI_TORCHVISION=declare $(VLLM_BIN)/python -m pytest tests/vlm/test_vllm.py
test-slurm: $(READY); .ci/slurm  ## pipelines/slurm/ on a real Slurm of one node, installed by apt (root)
test-ray: $(READY)  ## pipelines/on_ray.py on a real Ray cluster, installed into $(BIN)
	$(INSTALL) -e '.[ray]' && $(BIN)/python -m pytest tests/pipelines/test_on_ray.py

demo: $(READY); @pipelines/demo.sh  ## a first look: `inspect` and VID-AD on pictures that it renders
reproduce-vidad: $(READY); @pipelines/vidad.sh  ## VID-AD, rendered scenes or VIDAD_ROOT
reproduce-vidad-check: $(READY); @CHECK=yes pipelines/vidad.sh  ## the same, and the figures with their targets
ablate-vidad: $(READY); @pipelines/vidad_ablations.sh  ## VID-AD's Table 7, VIDAD_ROOT
reproduce-tiles: $(READY); @pipelines/tiles.sh  ## the same stages on real photographs, TILES
reproduce-lvlm: $(READY); @pipelines/lvlm.sh  ## LVLM, scenes and tiles or MVTEC_ROOT and VISA_ROOT
reproduce-visualad: $(READY); @pipelines/visualad$(if $(REAL),,_demo).sh  ## VisualAD, tiles or MVTEC_ROOT and VISA_ROOT
ablate-visualad: $(READY); @pipelines/visualad_ablations.sh  ## VisualAD's Tables 2 to 5, TABLES=figure4
reproduce-sage: $(READY); @pipelines/sage$(if $(REAL),,_demo).sh  ## SAGE, tiles or MVTEC_ROOT and VISA_ROOT
ablate-sage: $(READY); @pipelines/sage_ablations.sh  ## SAGE's Table 3 and Figure 7, TEST_QUESTIONS, JUDGE
reproduce-vmad: $(READY); @pipelines/vmad$(if $(strip $(RIAD_ROOT)),,_demo).sh  ## VMAD, tiles or RIAD_ROOT
ablate-vmad: $(READY); @TABLE=3 pipelines/vmad_ablations.sh  ## VMAD's Table III, VMAD_ON, VMAD_TO
ablate-vmad-projectors: $(READY); @TABLE=5 pipelines/vmad_ablations.sh  ## VMAD's Table V, VMAD_ON, VMAD_TO

clean-runs: ; rm -rf runs  ## remove every run
