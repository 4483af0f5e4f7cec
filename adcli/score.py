"""`adcli score`: the options depend on the method, so that only its module is imported."""

import typer

from adcli.methods import Method, asked, by_method

TEXT_KNN = """VID-AD: mean distance of the caption to its 5 nearest normal captions in the fine-tuned encoder's space
(Eq. 6-9), with the nearest captions and the words that differ.

Example: adcli score runs/demo/manifest.parquet --method text-knn --captions runs/demo/captions.parquet \\
  --encoders runs/demo/encoders.parquet --out runs/demo/scores.parquet
"""

LVLM = """LVLM: one normal reference image, one question to a vision-language model. The decision is its yes or no,
the score p(yes) / (p(yes) + p(no)). --vlm scene, the default, compares the descriptions of the two images and needs
no model; it is no substitute for one.

Example: adcli score runs/demo/manifest.parquet --method lvlm --out runs/demo/lvlm-scores.parquet
"""

VLM_QA = """Questions to a plain vision-language model (the baselines of SAGE's Table 1), one-shot or zero-shot, with
the choices as lettered options. Writes answers, not scores.

Example: adcli score runs/qa/manifest.parquet --method vlm-qa --questions runs/qa/questions.parquet --vlm qwen2-vl \\
  --out runs/qa/answers.parquet
"""

SAGE = """SAGE: questions to a model that finetune-mllm trained, one-shot or zero-shot. Writes answers, not scores.

Example: adcli score runs/qa/manifest.parquet --method sage --questions runs/qa/questions.parquet \\
  --facts runs/qa/facts.parquet --checkpoint runs/visa/sage-edpo.parquet --out runs/qa/sage-answers.parquet
"""

MLE = """SAGE's Multiscale Logical Evaluation: a judge marks answers from 1 to 5 for defect category, defect location
and reasoning (Eq. 3 is their mean). Writes judgements, not scores. --judge words, the default, compares words with
the expert's answer and needs no model; it is no substitute for one.

Example: adcli score runs/qa/manifest.parquet --method mle --questions runs/qa/questions.parquet \\
  --answers runs/qa/answers.parquet --out runs/qa/judgements.parquet
"""

VISUALAD = """VisualAD: zero-shot anomaly maps of a model that train-visualad trained on other data; the score is the
mean of the map's highest 1 %.

Example: adcli score runs/tiles/manifest.parquet --method visualad --checkpoint runs/visa/visualad.parquet \\
  --out runs/tiles/visualad-scores.parquet --maps runs/tiles/visualad-maps.parquet
"""

VMAD = """VMAD: an answer, the mask that its <seg> token draws, and as the score the mean of the highest 1 % of the
mask's probabilities (--top-share). It is told what a normal object looks like as in training (--descriptions); --query
asks for a description, the impact or a suggestion, too. `adcli ask` talks about one image.

Example: adcli score runs/mvtec/manifest.parquet --method vmad --checkpoint runs/riad/vmad.parquet \\
  --out runs/mvtec/vmad-scores.parquet --maps runs/mvtec/vmad-maps.parquet
"""

ANOMALIB = """Vision baselines of anomalib on a packaged pretrained backbone (needs adcli[baselines]). A model is fitted
per task to its normal training images; these are scored as if it had not seen them (left out one by one, or in fifths),
so that thresholds mean something. There is no --limit, as a model is fitted to all pictures of a task at once; for a
quick try index fewer pictures.

Example: adcli score runs/tiles/manifest.parquet --method anomalib/padim --out runs/tiles/padim-scores.parquet \\
  --maps runs/tiles/padim-maps.parquet
"""

METHODS = {  # --method -> its configuration, what runs it, its help, options among the needed ones
    "text-knn": Method(
        "stages.text_encoder.config:ScoreTextKnnConfig", "stages.text_encoder.score:run", TEXT_KNN, limit=True
    ),
    "lvlm": Method("stages.lvlm.config:LvlmConfig", "stages.lvlm.score:run", LVLM, ("vlm",), True),
    "vlm-qa": Method("stages.questions.config:VlmQaConfig", "stages.questions.vlm_qa:run", VLM_QA, limit=True),
    "sage": Method("stages.sage.config:ScoreSageConfig", "stages.sage.score:run", SAGE, ("facts", "checkpoint"), True),
    "mle": Method("stages.questions.config:JudgeConfig", "stages.questions.judge:run", MLE, ("answers", "judge"), True),
    "visualad": Method(
        "stages.visualad.config:ScoreVisualadConfig", "stages.visualad.score:run", VISUALAD, ("maps",), True
    ),
    "vmad": Method("stages.vmad.config:ScoreVmadConfig", "stages.vmad.score:run", VMAD, ("maps",), True),
}
BASELINE = Method("stages.baselines.config:BaselineConfig", "stages.baselines.score:run", ANOMALIB, ("maps",))
MODELS = "padim patchcore dfm dfkde stfpm cflow reverse-distillation fastflow efficient-ad"
METHODS |= {f"anomalib/{model}": BASELINE for model in MODELS.split()}
SENTENCE = "Score every image of a manifest; higher = more anomalous."
EXAMPLE = """\
Example: adcli score runs/demo/manifest.parquet --method lvlm --out runs/demo/chosen-scores.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand with the options of the method that `arguments` name."""
    method = asked(arguments) or ""
    others = {method: BASELINE} if method.startswith("anomalib/") else {}  # it says why that model is not offered
    by_method(app, "score", SENTENCE, EXAMPLE, others | METHODS, arguments)
