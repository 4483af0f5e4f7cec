"""Scoring with a trained VMAD: for every image an answer, a mask and an image score."""

from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.scores_and_maps import check_outputs, scores_and_maps
from stages.artifacts.writer import Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_positive
from stages.base.errors import ImageError, InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import images_of, read_manifest
from stages.training.runs import FOLDER
from stages.training.saved_models import ADAPTER_WEIGHTS, check_model, read_json, trained_folder
from stages.vmad.config import ADAPTER, MERGED, RECORD, WEIGHTS

METHOD = "vmad"
MAP_ROWS = 64  # maps of a part: at 256 x 256 some 17 MB before compression
QUERIES = ("", "description", "impact", "suggestion")


@dataclass(frozen=True, kw_only=True)
class ScoreVmadConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    checkpoint: Path = option("what finetune-mllm --method vmad wrote")
    out: Path = option("where the scores and answers go")
    maps: Path | None = option("where the masks' probabilities go; without it only scores are kept", None)
    method: str = option("vmad", METHOD)
    name: str = option("what tables call this run", METHOD)
    query: str = option("what to ask for beside the mask: description, impact, suggestion or nothing", "")
    llava: str = option("where LLaVA lies, if not where it was trained", "")
    sam: str = option("where SAM lies, if not where it was trained", "")
    splits: str = option("images to score, comma-separated: test, train, val", "test")
    max_tokens: int = option("longest answer, tokens", 256)
    batch_size: int = option("images per forward pass", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 4)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)


def run(config: ScoreVmadConfig, options: RunOptions) -> Summary:
    """Score every image of the splits. An image that cannot be read is a row with `error`; `parsed` is strict where the
    model wrote `<seg>` itself, fallback where it had to be appended.

    The image score is the mean of the highest 1 % of the mask's probabilities; the paper names no rule.

    Raises:
        InputError: no checkpoint, no LLaVA or SAM, or no image in the splits.
    """
    from stages.training.torch_setup import prepare_torch, resolved_precision

    if config.query not in QUERIES:
        raise InputError(f"--query {config.query}: expected {', '.join(QUERIES[1:])}")
    require_positive(config, "max_tokens", "batch_size", "workers")
    check_models(config)
    device, precision = resolved_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    check_outputs(config.out, {"--maps": config.maps})
    prepare_torch()
    from stages.vmad.build import check_sam
    from stages.vmad.checkpoint import fingerprint, made_of, reader, sources
    from stages.vmad.data import prompt_texts
    from stages.vmad.scoring import asked, check_room

    check_room(
        *reader(config.checkpoint, config.llava), {asked(i, config.query) for i in images.values()}, config.max_tokens
    )
    _, record, _, sam = sources(config.checkpoint, config.llava, config.sam)
    check_sam(sam, record["revisions"][1])

    files = look_at(config.out, options.quiet, images=images.values())
    same = {n: getattr(config, n) for n in ("splits", "query", "max_tokens")}
    parameters = same | {
        "method": config.name,
        "precision": precision,
        "prompts": prompt_texts(),
        "weights": fingerprint(config.checkpoint, config.llava, config.sam),
    }
    inputs = {"manifest": manifest.fingerprint, "image files": files.images}
    keys = [(i, config.name) for i in images]

    def results(todo, scores):
        from stages.vmad.scoring import scored

        scores.ran_on = f"{device} {precision}"
        for image, found in scored(config, [images[k[0]] for k in todo], device, precision):
            key, failed = (image.image_id, config.name), isinstance(found, ImageError)
            yield key, found if failed else found.columns(), None if failed else found.map.numpy()

    notes = {
        "training": str(config.checkpoint.resolve()),
        "batch_size": config.batch_size,
        "vmad": made_of(config.checkpoint),
    }  # loss curves and Tables III and V of the report
    return scores_and_maps(
        config.out,
        config.maps,
        parameters,
        inputs,
        keys,
        options,
        MAP_ROWS,
        results,
        notes,
        map_kind="<f4",
        files=files,
        paths=named_paths(config),
    )


def check_models(config: ScoreVmadConfig) -> None:
    """Raises InputError: no checkpoint, or not the directories of a LLaVA and a SAM."""
    folder = trained_folder(config.checkpoint, FOLDER, (WEIGHTS, RECORD), "finetune-mllm --method vmad")
    record = read_json(folder / RECORD, "--checkpoint")
    if not record.get("merged") and not (folder / ADAPTER / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"--checkpoint {folder}: no {ADAPTER}/{ADAPTER_WEIGHTS} here")
    llava = str(folder / MERGED) if record.get("merged") else record.get("llava")
    for option, name in (("--llava", config.llava or llava), ("--sam", config.sam or record.get("sam"))):
        if not name:
            raise InputError(f"{folder / RECORD}: not of this version of adcli")
        check_model(name, option)
