"""VisualAD's training step and scoring pass against a plain float32 implementation of the released formulas.

    python -m benchmarks.visualad_step [ROUNDS]

A random ViT-B/16 at 224 px; a step of two images (forward, losses, backward, optimiser), and a pass of one image
(map, Gaussian, image score). Both use the same frozen weights and the same number of threads; ours in float32, and in
bf16 where the processor has it, which --precision auto then takes. Printed: medians and their ratio.
"""

import statistics
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from stages.training.prepared import torch

from scipy.ndimage import gaussian_filter
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks import visualad_reference as reference
from stages.training.torch_setup import has_bf16
from stages.visualad.backbone import Backbone
from stages.visualad.config import TrainVisualadConfig, VisualAdSettings
from stages.visualad.loss import losses
from stages.visualad.model import VisualAD, image_scores, smoothed
from stages.visualad.train import optimiser_of

TARGET = 0.9


def made() -> VisualAD:
    """ViT-B/16, layers 3, 6, 9, 12."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
        attn_implementation="sdpa",
    )
    return VisualAD(Backbone(CLIPVisionModel(config)), VisualAdSettings(layers=(3, 6, 9, 12), size=224)).eval()


def main(rounds: int) -> None:
    """Print a line for each precision and work."""
    for bf16 in (False, True)[: 1 + has_bf16("cpu")]:
        measure(made(), bf16, rounds)


def measure(model: VisualAD, bf16: bool, rounds: int) -> None:
    """The plain formulas in float32 against ours."""
    ours = deepcopy(model)
    if bf16:
        ours.backbone.in_bf16()
    config = replace(TrainVisualadConfig(manifest=Path(), out=Path()), epochs=1)
    optimisers = {m: optimiser_of(m, config, 100)[0] for m in (model, ours)}
    pixels = torch.randn(2, 3, 224, 224)
    masks, labels = (pixels[:, 0] > 1).float(), torch.tensor([1.0, 0.0])

    def step(of: VisualAD, loss: torch.Tensor) -> None:
        optimisers[of].zero_grad()
        loss.backward()
        optimisers[of].step()

    def plain_step():
        _, enhanced, maps = reference.forward(model, pixels)
        step(model, reference.objective(enhanced, maps, masks, labels)[-1])

    def our_step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = losses(ours(pixels), masks, labels, "code")["loss"]
        step(ours, loss)

    @torch.no_grad()
    def plain_pass():
        _, _, maps = reference.forward(model, pixels[:1])
        smooth = torch.from_numpy(gaussian_filter(maps.sum(0)[0].numpy(), 4.0))
        return float(smooth.flatten().sort(descending=True).values[:502].mean())

    @torch.inference_mode()
    def our_pass():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            fused = ours(pixels[:1]).fused.float()
        return float(image_scores(smoothed(fused)))

    name = "bf16" if bf16 else "float32"
    compare(f"training step, batch 2, ours in {name}", plain_step, our_step, rounds)
    compare(f"scoring pass, batch 1, ours in {name}", plain_pass, our_pass, rounds)


def compare(name: str, plain, ours, rounds: int) -> None:
    """Alternate the two, so that both meet the same machine."""
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    plain(), ours()
    for _ in range(rounds):
        for key, work in (("plain", plain), ("ours", ours)):
            started = time.monotonic()
            work()
            times[key].append(time.monotonic() - started)
    a, b = (statistics.median(times[k]) for k in ("plain", "ours"))
    print(f"{name}: plain {a:.2f} s, ours {b:.2f} s, ratio {b / a:.2f} (target <= {TARGET})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
