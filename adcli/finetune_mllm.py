"""`adcli finetune-mllm`: the options depend on the method, so that only its module is imported."""

import importlib

import typer

from adcli.options import command
from adcli.score import asked

METHODS = {  # --method -> (module, configuration, help)
    "sage-sfe": (
        "stages.sage.sfe",
        "SfeConfig",
        """SAGE, first stage: self-guided fact enhancement. Facts about the
image ask, by cross-attention, for the patches that differ most from the reference image; learned on best answers.

Example: adcli finetune-mllm runs/mvtec/manifest.parquet --method sage-sfe --questions runs/mvtec/questions.parquet \\
  --facts runs/mvtec/facts.parquet --base /models/InternVL3-8B-hf --out runs/mvtec/sage-sfe.parquet
""",
    ),
    "sage-edpo": (
        "stages.sage.edpo",
        "EdpoConfig",
        """SAGE, second stage: entropy-aware DPO on ranked answers, from the
first stage's model, which is also the frozen reference.

Example: adcli finetune-mllm runs/visa/manifest.parquet --method sage-edpo --questions runs/visa/questions.parquet \\
  --facts runs/visa/facts.parquet --judgements runs/visa/judgements.parquet \\
  --checkpoint runs/mvtec/sage-sfe.parquet --out runs/visa/sage-edpo.parquet
""",
    ),
    "vmad": (
        "stages.vmad.train",
        "FinetuneVmadConfig",
        """VMAD: LLaVA learns to answer with a <seg> token, whose state
draws the mask through SAM's decoder; local features compressed to a quarter of the tokens (LTC), patches told apart as
the visual backbone does (DSSL). Several GPUs: torchrun --nproc_per_node 8 -m adcli finetune-mllm ...

Example: adcli finetune-mllm runs/riad/manifest.parquet --method vmad --questions runs/riad/questions.parquet \\
  --llava /models/llava-1.5-7b-hf --sam /models/sam-vit-huge --out runs/riad/vmad.parquet
""",
    ),
}
DOC = """Fine-tune a multimodal language model.

"""
CHOOSE = (
    DOC
    + """Each method has options of its own: `adcli finetune-mllm --method NAME --help` lists them.

Example: adcli finetune-mllm runs/mvtec/manifest.parquet --method sage-sfe --questions runs/mvtec/questions.parquet \\
  --facts runs/mvtec/facts.parquet --out runs/mvtec/sage-sfe.parquet
"""
)


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand with the options of the method that `arguments` name."""
    method = asked(arguments)
    if method in METHODS:
        module, config, text = METHODS[method]
        stage = importlib.import_module(module)
        command(
            app,
            "finetune-mllm",
            getattr(stage, config),
            stage.run,
            DOC + text,
            without=("shard", "max_errors", "retry"),
        )
        return

    def choose(method: str = typer.Option(help=f"one of {', '.join(METHODS)}")) -> None:
        raise typer.BadParameter(f"{method!r} is none of {', '.join(METHODS)}", param_hint="--method")

    loose = {"allow_extra_args": True, "ignore_unknown_options": True}  # they belong to some method
    app.command("finetune-mllm", help=CHOOSE.replace("Example: ", "\b\nExample: "), context_settings=loose)(choose)
