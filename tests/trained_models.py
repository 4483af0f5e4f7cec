"""Directories that look like trained models, for what is looked at before one is loaded."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path


def look_alikes(folder: Path, clip: Path, internvl: Path, llava: str, sam: str) -> dict[str, Path]:
    """visualad, vmad, sage: directories with the files and the record of such a model, whose tensors are others."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    from stages.vmad.build import read_llava, text_of
    from stages.vmad.config import LossWeights, VmadSettings

    text = text_of(*read_llava(llava, ""), VmadSettings(), llava)

    visualad = {"backbone": str(clip), "revision": "", "settings": {}, "mean": [0.5] * 3, "deviation": [0.5] * 3}
    vmad = {
        "llava": llava,
        "sam": sam,
        "revisions": ["", ""],
        "merged": False,
        "seg": text.seg,
        "tokens": 4,
        "settings": asdict(VmadSettings()),
        "weights": asdict(LossWeights()),
    }
    for name, record in (("visualad", visualad), ("vmad", vmad)):
        (folder / name / "adapter").mkdir(parents=True)
        shutil.copyfile(clip / "model.safetensors", folder / name / f"{name}.safetensors")
        (folder / name / f"{name}.json").write_text(json.dumps(record))
    shutil.copyfile(clip / "model.safetensors", folder / "vmad" / "adapter" / "adapter_model.safetensors")
    sage = {
        "stage": "sfe",
        "base": str(internvl),
        "revision": "",
        "weights": "",
        "settings": {"fusion": "none", "lora_rank": 0},
    }
    shutil.copytree(internvl, folder / "sage")
    (folder / "sage" / "sage.json").write_text(json.dumps(sage))
    return {name: folder / name for name in ("visualad", "vmad", "sage")}
