"""`adcli finetune-mllm`: the options depend on the method, so that only its module is imported."""

import typer

from adcli.methods import Method, by_method

SAGE_SFE = """SAGE, first stage: self-guided fact enhancement. Facts about the image ask, by cross-attention, for the
patches that differ most from the reference image; learned on best answers.

Example: adcli finetune-mllm runs/mvtec/manifest.parquet --method sage-sfe --questions runs/mvtec/questions.parquet \\
  --facts runs/mvtec/facts.parquet --base /models/InternVL3-8B-hf --out runs/mvtec/sage-sfe.parquet
"""

SAGE_EDPO = """SAGE, second stage: entropy-aware DPO on ranked answers, from the first stage's model, which is also
the frozen reference.

Example: adcli finetune-mllm runs/visa/manifest.parquet --method sage-edpo --questions runs/visa/questions.parquet \\
  --facts runs/visa/facts.parquet --judgements runs/visa/judgements.parquet \\
  --checkpoint runs/mvtec/sage-sfe.parquet --out runs/visa/sage-edpo.parquet
"""

VMAD = """VMAD: LLaVA learns to answer with a <seg> token, whose state draws the mask through SAM's decoder; local
features compressed to a quarter of the tokens (LTC), patches told apart as the visual backbone does (DSSL). Several
GPUs: torchrun --nproc_per_node 8 -m adcli finetune-mllm ...

Example: adcli finetune-mllm runs/riad/manifest.parquet --method vmad --questions runs/riad/questions.parquet \\
  --llava /models/llava-1.5-7b-hf --sam /models/sam-vit-huge --out runs/riad/vmad.parquet
"""

METHODS = {  # --method -> its configuration, what runs it, its help, options among the needed ones
    "sage-sfe": Method("stages.sage.config:SfeConfig", "stages.sage.sfe:run", SAGE_SFE, ("facts", "base")),
    "sage-edpo": Method(
        "stages.sage.config:EdpoConfig", "stages.sage.edpo:run", SAGE_EDPO, ("facts", "checkpoint", "judgements")
    ),
    "vmad": Method(
        "stages.vmad.config:FinetuneVmadConfig", "stages.vmad.train:run", VMAD, ("questions", "llava", "sam")
    ),
}
SENTENCE = "Fine-tune a multimodal language model."
EXAMPLE = """\
Example: adcli finetune-mllm runs/mvtec/manifest.parquet --method sage-sfe --questions runs/mvtec/questions.parquet \\
  --facts runs/mvtec/facts.parquet --out runs/mvtec/sage-sfe.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand with the options of the method that `arguments` name."""
    by_method(app, "finetune-mllm", SENTENCE, EXAMPLE, METHODS, arguments, ("shard", "max_errors", "retry"))
