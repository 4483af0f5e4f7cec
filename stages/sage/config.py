"""Options of SAGE's trainings and scores, the record of a trained model, and what can be checked without torch."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from stages.base.config import argument, check_numbers, option
from stages.base.errors import InputError
from stages.sage.entropy import EQ5, PAIRS, READINGS, SURPRISAL
from stages.sage.recipes import check_recipe, filled
from stages.training import distributed
from stages.training.distributed import accumulation_steps
from stages.training.options import GROUP, ImageTrainingOptions
from stages.training.saved_models import (
    ADAPTER_WEIGHTS,
    check_chat_template,
    check_merged,
    check_model,
    read_json,
    trained_folder,
)
from stages.training.torch_setup import resolved_precision
from stages.vlm.models import SHORT_NAMES, require_known

RECORD, FUSION = "sage.json", "fusion.safetensors"  # files of a checkpoint
FUSIONS = ("attention", "text", "none", "released")
SIMILARITIES = ("max", "min")
OBJECTIVES = ("dpo", "printed", "mpo")
STATES = ("trained", "frozen")
WAYS = ("generate", "likelihood", "prefix")
SAME_RESULT = ("epochs", "batch_size", "learning_rate", "warmup", "schedule", "clip", "weight_decay", "max_length")
FSDP = ("full_shard", "shard_grad_op", "offload", "auto_wrap")  # auto_wrap: what transformers does anyway


@dataclass(frozen=True)
class SageSettings:
    """fusion: attention = SFE; released = what the authors' code does under that name; text = facts as text in the
    prompt (Table 3, Fact[Hard]); none = no facts, the plain fine-tuning of Table 1's `InternVL2 (sft)`. shots: 1 =
    compared with a reference image, 0 = without one. tiles: most tiles an image is cut into, 0 = the processor's own
    number. lora_rank: 0 = all weights were trained. adapter: of the images, trained or frozen in SFE. redraw_output: of
    released, its output projection drawn anew in every pass."""

    fusion: str = "attention"
    shots: int = 1
    patches: int = 20
    similarity: str = "max"
    heads: int = 8
    sentences: int = 0
    tiles: int = 0
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    adapter: str = "trained"
    redraw_output: bool = False

    @property
    def fuses(self) -> bool:
        """Whether a fusion layer of its own is in the model."""
        return self.fusion in ("attention", "released")

    def check(self) -> None:
        """Raises InputError for a value that means nothing."""
        if self.fusion not in FUSIONS:
            raise InputError(f"--fusion {self.fusion}: expected {', '.join(FUSIONS)}")
        if self.similarity not in SIMILARITIES:
            raise InputError(f"--similarity {self.similarity}: expected {', '.join(SIMILARITIES)}")
        if self.fusion == "released" and self.shots:
            raise InputError("--fusion released compares with no reference image: give --shots 0")
        if self.redraw_output and self.fusion != "released":
            raise InputError(f"--redraw-output: a slip of --fusion released, not of {self.fusion}")
        if self.adapter not in STATES:
            raise InputError(f"--adapter {self.adapter}: expected {' or '.join(STATES)}")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"--lora-dropout {self.lora_dropout}: expected at least 0 and less than 1")
        if self.shots not in (0, 1):
            raise InputError(f"--shots {self.shots}: expected 1 (with the question's reference image) or 0")
        for name, least in (
            ("patches", 1),
            ("heads", 1),
            ("sentences", 0),
            ("tiles", 0),
            ("lora_rank", 0),
            ("lora_alpha", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least {least}")


@dataclass(frozen=True, kw_only=True)
class SageTraining(ImageTrainingOptions):
    """None: as the recipe says (`recipes.py`)."""

    recipe: str = option(
        "what an option that is not given means. default: lowers the loss of a small set, too; paper: section 5.1, all"
        " of the language model, as many epochs as the warm-up needs; released: the authors' scripts",
        "default",
        GROUP,
    )
    epochs: float | None = option("passes over the samples; by recipe 3 or 1, as the warm-up needs, 1", None, GROUP)
    batch_size: int | None = option(
        "samples per optimiser step, over all processes; by recipe 16, 32, and 16 (SFE) or 4 (E-DPO)", None, GROUP
    )
    micro_batch: int = option("samples per forward pass and process; the rest of the batch is accumulated", 1, GROUP)
    learning_rate: float | None = option(
        "peak of AdamW; by recipe 2e-4 (SFE) and 5e-5 (E-DPO) with LoRA, 1e-5 and 2e-6 without it; 2e-6; 4e-5 and 5e-6",
        None,
        GROUP,
    )
    warmup: float | None = option(
        "steps of linear warm-up; below 1: their share of all steps; by recipe 0.03, 1000, 0.03", None, GROUP
    )
    schedule: str | None = option(
        "after the warm-up: linear or cosine to 0, or constant; by recipe cosine, linear, cosine", None, GROUP
    )
    clip: float = option("largest norm of the gradient", 1.0, GROUP)
    weight_decay: float | None = option("of AdamW; by recipe 0, 0, 0.05", None, GROUP)
    max_length: int = option(
        "longest sample, tokens; 0 = the model's context; a longer one is refused, never cut", 0, GROUP
    )
    fsdp: str = option(
        "shard over the GPUs of torchrun: full_shard, or shard_grad_op = weights stay whole after the"
        " forward pass; 'full_shard offload' keeps shards in main memory; not tried on GPUs",
        "",
    )
    deepspeed: Path | None = option(
        "DeepSpeed configuration, JSON, as transformers' --deepspeed takes it; not tried", None
    )

    def check(self) -> None:
        """Everything that can be said of these options without torch. Raises InputError for numbers that do not fit, a
        device that is not there, and --fsdp where nothing would be sharded and whole copies be trained."""
        if self.schedule not in ("linear", "cosine", "constant", None):
            raise InputError(f"--schedule {self.schedule}: expected linear, cosine or constant")
        check_recipe(self.recipe)
        check_numbers(self)
        if self.deepspeed and not self.deepspeed.is_file():
            raise InputError(f"--deepspeed {self.deepspeed}: no such file")
        if self.deepspeed and find_spec("deepspeed") is None:
            raise InputError("--deepspeed needs the package deepspeed: pip install deepspeed")
        if self.fsdp and (self.deepspeed or distributed.world() == 1):
            raise InputError("--fsdp shards over several processes (torchrun --nproc_per_node N), without --deepspeed")
        if unknown := [w for w in self.fsdp.split() if w not in FSDP]:
            raise InputError(f"--fsdp {unknown[0]}: expected words of {', '.join(FSDP)}")
        accumulation_steps(filled(self).batch_size, self.micro_batch)

    def require_sharded(self, device: str) -> None:
        """Raises InputError where --fsdp would shard nothing and train whole copies."""
        if self.fsdp and device == "cpu":
            raise InputError(f"--fsdp: nothing is sharded on --device {device}; leave it out there")


@dataclass(frozen=True, kw_only=True)
class SfeConfig(SageTraining):
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("questions about them with answers: artifact or Parquet file")
    out: Path = option("the trained model and its record")
    facts: Path | None = option("captions of the test images, their fact sentences; needless with --fusion none", None)
    base: str = option("InternVL or LLaVA: short name, hub id or directory, in transformers' own format", "internvl3")
    revision: str = option("branch, tag or commit of a hub model", "")
    method: str = option("sage-sfe", "sage-sfe")
    fusion: str = option(
        f"{', '.join(FUSIONS)}: attention = SFE; text = facts in the prompt (Table 3, Fact[Hard]);"
        " none = plain fine-tuning (Table 1, sft); released = the authors' code: ten lines ask all patches of the test"
        " image, their vectors stand before the chat",
        "attention",
    )
    redraw_output: bool = option(
        "with --fusion released: draw the attention's output projection anew in every pass, as that code does", False
    )
    shots: int = option("1 = compared with the question's reference image, 0 = test image alone", 1)
    patches: int = option("K of Eq. 1, patches that differ most; Figure 7 sees little difference from 20 to 50", 20)
    similarity: str = option(
        f"of a patch to the reference image, {' or '.join(SIMILARITIES)}: max = to the patch most"
        " like it, min = Eq. 1 as printed",
        "max",
    )
    heads: int = option("of the fusion attention", 8)
    sentences: int = option("most fact sentences per image; 0 = all", 0)
    tiles: int | None = option("most tiles an image is cut into; 0 = the model's own number; by recipe 0, 0, 6", None)
    lora_rank: int | None = option("rank of LoRA on the language model; 0 = train all of it; by recipe 16, 0, 16", None)
    lora_alpha: int = option("LoRA's scale is alpha / rank", 32)
    lora_dropout: float | None = option("before LoRA, 0 to 1; by recipe 0, 0, 0.05", None)
    adapter: str | None = option(f"of the images, {' or '.join(STATES)}; by recipe trained, trained, frozen", None)
    merged: Path | None = option("also write a plain checkpoint for vLLM here (--fusion none or text)", None)

    def settings(self) -> SageSettings:
        """What the model is made of."""
        whole = filled(self)
        return SageSettings(**{n: getattr(whole, n) for n in SageSettings.__dataclass_fields__})

    def check(self) -> None:
        """See `SageTraining.check`; also raises InputError for a base model that is not there."""
        self.settings().check()
        super().check()
        require_known(self.base, "--base")
        if self.merged and self.settings().fuses:
            raise InputError("--merged: a fusion layer cannot be merged; only --fusion none and text can")
        check_merged(self.merged, self.out)
        check_model(hub_id(self.base), "--base")
        check_chat_template(hub_id(self.base), "--base")
        device, _ = resolved_precision(self.device, self.precision)
        self.require_sharded(device)


@dataclass(frozen=True, kw_only=True)
class EdpoConfig(SageTraining):
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("questions about them with ranked answers: artifact or Parquet file")
    out: Path = option("the trained model and its record")
    checkpoint: Path | None = option(
        "what finetune-mllm --method sage-sfe wrote; without it --base itself is aligned (Table 3, +DPO)",
        None,
    )
    judgements: Path | None = option(
        "MLE scores of each question's own answers, methods choice/0, choice/1, ...; needless where --eta is 0 and"
        " --pairs adjacent, or every question has two answers",
        None,
    )
    facts: Path | None = option("captions of the test images, their fact sentences; as for the SFE model", None)
    base: str = option("where the base model lies, if not where the SFE model was trained", "")
    shots: int = option("without --checkpoint: 1 = the reference image is shown, too, 0 = the test image alone", 1)
    tiles: int = option("without --checkpoint: most tiles an image is cut into; 0 = the model's own number", 0)
    lora_rank: int | None = option(
        "without --checkpoint: rank of LoRA on the language model; 0 = train all of it; by recipe 16, 0, 0", None
    )
    method: str = option("sage-edpo", "sage-edpo")
    eta: float = option("weight of the entropy difference in the margin (Eq. 6); 0 = plain DPO on the same pairs", 1.0)
    entropy: str = option(
        f"of an answer (Eq. 4), {' or '.join(READINGS)}: surprisal = -log p, differences are those of the scores;"
        " term = -p log p, the printed sum's summand",
        SURPRISAL,
    )
    pairs: str = option(
        f"of each question's answers, {' or '.join(PAIRS)}: eq5 = the adjacent pair of the smallest entropy difference,"
        " and the first with the last; adjacent = every adjacent pair, and the first with the last",
        EQ5,
    )
    sft_weight: float = option(
        "anchor: weight of the winner's negative log-likelihood per token beside the preference loss; 0 = none", 0.0
    )
    vision: str | None = option(
        "the vision tower, trained or frozen; by recipe frozen, frozen, trained (needs an SFE model without LoRA)", None
    )
    beta: float = option("of DPO: how closely the reference is kept; unused with --objective printed", 0.1)
    objective: str = option(
        f"{', '.join(OBJECTIVES)}: dpo = log-ratios to the SFE model, printed = Eq. 6 to the letter, without a"
        " reference; mpo = what the released code runs, 0.8 DPO + 0.2 BCO (with --sft-weight 1 --eta 0)",
        "dpo",
    )

    def start(self) -> tuple[Path | None, SageSettings, dict]:
        """See `require_start`."""
        rank = filled(self).lora_rank
        plain = SageSettings(fusion="none", shots=self.shots, tiles=self.tiles, lora_rank=rank)
        return require_start(self.checkpoint, self.base, plain)

    def check(self) -> None:
        """See `SageTraining.check`; also raises InputError for an SFE model that is not there."""
        super().check()
        if self.objective not in OBJECTIVES:
            raise InputError(f"--objective {self.objective}: expected {', '.join(OBJECTIVES)}")
        if self.pairs not in PAIRS:
            raise InputError(f"--pairs {self.pairs}: expected {' or '.join(PAIRS)}")
        if self.objective == "mpo" and self.eta:
            raise InputError("--objective mpo has no margin: give --eta 0 (and --sft-weight 1, as released)")
        if self.entropy not in READINGS:
            raise InputError(f"--entropy {self.entropy}: expected {' or '.join(READINGS)}")
        given = [n for n in ("shots", "tiles", "lora_rank") if getattr(self, n) != getattr(EdpoConfig, n)]
        if self.checkpoint and given:
            raise InputError(
                f"--{given[0].replace('_', '-')}: is that of --checkpoint; leave it out, or give --base alone"
            )
        _, settings, _ = self.start()
        settings.check()
        if filled(self).vision not in STATES:
            raise InputError(f"--vision {self.vision}: expected {' or '.join(STATES)}")
        if filled(self).vision == "trained" and settings.lora_rank:
            raise InputError(
                f"{self.checkpoint or self.base}: has LoRA on the language model alone, which cannot hold a trained"
                " vision tower: give --vision frozen, or train with --lora-rank 0"
            )
        device, _ = resolved_precision(self.device, self.precision)
        self.require_sharded(device)


@dataclass(frozen=True, kw_only=True)
class ScoreSageConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("the questions about them: artifact or Parquet file")
    out: Path = option("where the answers go")
    checkpoint: Path | None = option(
        "what finetune-mllm --method sage-sfe or sage-edpo wrote; without it --base as it is before any training", None
    )
    facts: Path | None = option("captions of the test images, their fact sentences; as in training", None)
    method: str = option("sage", "sage")
    name: str = option("what tables call this run; by default sage-edpo/1-shot and the like", "")
    base: str = option("where the base model lies, if not where it was trained", "")
    shots: int = option("1: compared with the reference image; 0: zero-shot, the test image alone", 1)
    unfused: bool = option(
        "of --fusion released: ask without facts and fusion, as the released generation does, which calls neither",
        False,
    )
    choose: str = option(
        "generate (the reply is read), likelihood (the choice with the likeliest words), or prefix (True/False sets as"
        " the released code asks: True only where the reply begins with true or yes)",
        "generate",
    )
    max_tokens: int = option("longest reply, tokens", 256)
    batch_size: int = option("questions per forward pass of --choose generate", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of the order in which ranked choices are shown", 0)

    def start(self) -> tuple[Path | None, SageSettings, dict]:
        """See `require_start`."""
        return require_start(self.checkpoint, self.base, SageSettings(fusion="none", lora_rank=0))

    def at_test(self, settings: SageSettings) -> SageSettings:
        """The checkpoint's settings with what is other at test. Raises InputError for --unfused of another fusion."""
        if self.unfused and settings.fusion != "released":
            raise InputError(
                f"--unfused: of --fusion released alone; this checkpoint was trained with {settings.fusion}"
            )
        unfused = {"fusion": "none", "redraw_output": False} if self.unfused else {}
        return replace(settings, shots=self.shots, **unfused)

    def check(self) -> None:
        """Everything that can be said without torch. Raises InputError for unusable settings, no checkpoint or no base
        model."""
        check_numbers(self)
        if self.choose not in WAYS:
            raise InputError(f"--choose {self.choose}: expected {', '.join(WAYS)}")
        _, settings, _ = self.start()
        self.at_test(settings).check()
        resolved_precision(self.device, self.precision)


def checkpoint_folder(place: Path) -> Path:
    """The folder with the checkpoint: `place` itself, or the one of a finetune-mllm artifact.

    Raises:
        InputError: none there.
    """
    return trained_folder(place, (RECORD,), "finetune-mllm --method sage-sfe or sage-edpo")


def read_record(place: Path) -> tuple[Path, SageSettings, dict]:
    """(folder, settings, record). Raises InputError for no checkpoint, or one of another version."""
    folder = checkpoint_folder(place)
    record = read_json(folder / RECORD, "--checkpoint")
    try:
        return folder, SageSettings(**record["settings"]), record
    except (TypeError, KeyError) as e:
        raise InputError(f"{folder / RECORD}: not of this version of adcli ({e})") from e


def require_start(place: Path | None, base: str, plain: SageSettings) -> tuple[Path | None, SageSettings, dict]:
    """`require_trained`; without a checkpoint (None, `plain`, a record of the base model itself). Raises InputError:
    neither is named, or it is not there."""
    if base:
        require_known(base, "--base")
    if place:
        return require_trained(place, base)
    if not base:
        raise InputError("--checkpoint is missing (or --base, for the model as it is before any training)")
    check_model(hub_id(base), "--base")
    check_chat_template(hub_id(base), "--base")
    return None, plain, {"stage": "base", "base": hub_id(base), "revision": ""}


def require_trained(place: Path, base: str = "") -> tuple[Path, SageSettings, dict]:
    """`read_record`, and that the files of the checkpoint and of its base model are there. Imports no torch. Raises
    InputError: they are not."""
    folder, settings, record = read_record(place)
    needed = [FUSION] if settings.fuses else []
    needed += [ADAPTER_WEIGHTS] if settings.lora_rank else []
    if lacking := [name for name in needed if not (folder / name).is_file()]:
        raise InputError(f"--checkpoint {folder}: no {lacking[0]} here")
    name, _ = stock(folder, settings, record, base)
    what = "--base" if settings.lora_rank else "--checkpoint"
    check_model(name, what)
    check_chat_template(name, what)
    return folder, settings, record


def hub_id(name: str) -> str:
    """A short name -> its hub id; others as they are."""
    return SHORT_NAMES.get(name, name)


def stock(folder: Path | None, settings: SageSettings, record: dict, base: str = "") -> tuple[str, str]:
    """(place, revision) of the stock model in a checkpoint: the base under LoRA, else the checkpoint itself. folder:
    None without a checkpoint, where it is the base."""
    of_base = settings.lora_rank or folder is None
    return (hub_id(base or record["base"]), record["revision"]) if of_base else (str(folder), "")
