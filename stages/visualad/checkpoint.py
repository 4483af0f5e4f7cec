"""A trained VisualAD on disk: safetensors without the backbone, and what it was made of as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file

from stages.base.errors import InputError
from stages.training.trained import trained_fingerprint
from stages.training.weights import fingerprint_of, must_fit
from stages.visualad.backbone import load_backbone
from stages.visualad.config import RECORD, WEIGHTS, VisualAdSettings, checkpoint_folder
from stages.visualad.data import ImageTransform
from stages.visualad.model import VisualAD


def save(model: VisualAD, folder: Path, backbone: str, revision: str, transform: ImageTransform, notes: dict) -> None:
    """Write the trained tensors and the record. backbone: directory or hub id, as it was given; notes: further values
    of the record, see `described`."""
    tensors = {n: t.detach().float().cpu().contiguous() for n, t in model.trained_tensors().items()}
    save_file(tensors, folder / WEIGHTS)
    record = {
        "backbone": backbone,
        "revision": revision,
        "digest": model.backbone.digest,
        "settings": asdict(model.settings),
        "mean": transform.mean,
        "deviation": transform.std,
        "notes": notes,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def fingerprint(place: Path, backbone: str = "") -> str:
    """Of the trained tensors and of the backbone that they are run with, which may lie elsewhere now.

    Raises:
        InputError: no checkpoint, or no such backbone.
    """
    folder = checkpoint_folder(place)
    record = json.loads((folder / RECORD).read_text())
    name = backbone or record["backbone"]
    return f"{trained_fingerprint(folder)} {fingerprint_of('--backbone', name, record['revision'])}"


def described(place: Path, backbone: str = "") -> dict:
    """What tables say of a checkpoint: its backbone, its settings, and, of this version's, data sets, epochs, seed
    and precision of its training. Raises InputError: no checkpoint."""
    record = json.loads((checkpoint_folder(place) / RECORD).read_text())
    return {"backbone": backbone or record["backbone"], **record["settings"], **record.get("notes", {})}


def load(place: Path, backbone: str = "") -> tuple[VisualAD, ImageTransform]:
    """The model in evaluation mode, and how it wants images. backbone: where it lies now, if elsewhere.

    Raises:
        InputError: no checkpoint, no such backbone, tensors that do not fit it, or other weights than those that the
            checkpoint was trained on.
    """
    folder = checkpoint_folder(place)
    record = json.loads((folder / RECORD).read_text())
    settings = VisualAdSettings.of(record["settings"])
    name = backbone or record["backbone"]
    vit, _, _ = load_backbone(name, record["revision"])
    model = VisualAD(vit, settings)
    if record.get("digest", vit.digest) != vit.digest:  # records of earlier versions have none
        raise InputError(
            f"--backbone {name}: not the weights that {folder} was trained on, which were those of"
            f" {record['backbone']}; give that model, or train on this one"
        )
    tensors = load_file(folder / WEIGHTS)
    if settings.as_released:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("norm.")}
    with must_fit(folder, f"the backbone {name}"):
        missing, strange = model.load_state_dict(tensors, strict=False)
    lacking = [n for n in missing if not n.startswith("backbone.") and not (settings.as_released and n[:5] == "norm.")]
    if strange or lacking:
        raise InputError(f"{folder}: does not fit this version ({', '.join([*lacking, *strange][:3])})")
    return model.eval(), ImageTransform(settings.size, tuple(record["mean"]), tuple(record["deviation"]))
