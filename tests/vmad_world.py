"""Four pictures, and a VMAD made of tiny checkpoints."""

import numpy as np
import torch

from stages.datasets.manifest import Image
from stages.vmad.build import build_memory, new_model
from stages.vmad.config import LossWeights, VmadSettings
from stages.vmad.data import TrainingSet, collate, samples_of
from stages.vmad.memory import choose_memory
from stages.vmad.model import trainable

T_X = {("d", name): f"A {name} that is whole." for name in ("metal_nut", "tile")}
SMALL = VmadSettings(heads=4, depth=1, boxes=3, box_size=16, drawn=2)


def paint(folder):
    """Four images of 40 x 60 of two categories, every other with a mask; one portrait among them."""
    from PIL import Image as Picture

    rng, found = np.random.default_rng(0), []
    for n in range(4):
        h, w = (60, 40) if n == 3 else (40, 60)
        mask = np.zeros((h, w), np.uint8)
        mask[5:20, 10:30] = 255 * (n % 2)
        Picture.fromarray(rng.integers(0, 255, (h, w, 3), np.uint8)).save(folder / f"{n}.png")
        Picture.fromarray(mask).save(folder / f"{n}_mask.png")
        found.append(
            Image(
                f"i{n}",
                folder / f"{n}.png",
                "d",
                ("metal_nut", "tile")[n // 2],
                None,
                "train",
                n % 2,
                "bent_wire" if n % 2 else None,
                (folder / f"{n}_mask.png",) if n % 2 else (),
                w,
                h,
                None,
            )
        )
    return found


def made(llava, sam, settings=SMALL, seed=0):
    torch.manual_seed(seed)
    return new_model(llava, sam, settings, LossWeights())


def batch_of(model, text, pictures, tasks=("segmentation",), questions=()):
    classes = {("d", "metal_nut"): 0, ("d", "tile"): 1}
    if model.dssl:
        model.memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, model.settings.drawn, told=T_X)
    data = TrainingSet(samples_of(pictures, tasks, questions), text, model.transform, classes)
    return collate([data[n] for n in range(len(data))], text.pad)


def shaken(model, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in trainable(model).values():
            p += 0.1 * torch.randn_like(p)
    return model
