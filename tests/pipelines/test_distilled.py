"""pipelines/demo_models/distilled.py and distilled_vlm.py on noise: what is fitted, from which images, the probe."""

import pytest


@pytest.mark.slow
def test_fitting_lowers_the_error_and_the_encoder_gives_what_was_fitted(tmp_path):
    from stages.training.prepared import torch

    from transformers import SamModel

    from pipelines.demo_models.distilled import GRID, KEPT, PATCH, features, fitted, shape, written
    from pipelines.demo_models.random_vmad import CANVAS, tiny_sam

    torch.manual_seed(0)
    encoder = SamModel.from_pretrained(tiny_sam(tmp_path / "sam", CANVAS, PATCH, vision=shape())).eval().vision_encoder
    pixels = torch.rand(3, 3, CANVAS, CANVAS) * torch.rand(3, 1, GRID, 1, GRID, 1).expand(
        -1, -1, -1, PATCH, -1, PATCH
    ).reshape(3, 1, CANVAS, CANVAS)
    inside = torch.ones(3, GRID, GRID, dtype=torch.bool)
    cells = torch.nn.functional.unfold(pixels[:, :1], PATCH, stride=PATCH).transpose(1, 2).reshape(3 * GRID**2, -1)
    targets = torch.stack([cells.mean(1), cells.std(1)], 1)
    targets = (targets - targets.mean(0)) / targets.std(0)
    targets = torch.cat([targets, -targets], 1).repeat(1, KEPT // 4 + 1)[:, : KEPT // 4 * 4]
    targets = torch.cat([targets, targets[:, :1], -targets[:, :1]], 1)  # they sum to 0, as those of lite0 do
    written(encoder)
    before, after = fitted(encoder, pixels, inside, targets)
    assert before == pytest.approx(1, abs=0.01) and after < 0.1  # brightness and strength of a cell are seen
    assert float((features(encoder, pixels)[inside][:, :KEPT] - targets).square().mean()) == pytest.approx(after)


@pytest.mark.slow
def test_fitting_internvl_gives_the_adapter_what_was_fitted_and_a_patch_its_neighbours(tmp_path):
    from stages.training.prepared import torch

    from transformers import InternVLForConditionalGeneration

    from pipelines.demo_models.distilled_vlm import (
        GRID,
        KEPT,
        NEAR,
        PATCH,
        SIZE,
        STRENGTH,
        TOKENS,
        fitted,
        shape,
        tokens,
        written,
    )
    from pipelines.demo_models.random_vlm import tiny_internvl

    torch.manual_seed(0)
    folder = tiny_internvl(tmp_path / "vlm", vision=shape(), tiles=1)
    model = InternVLForConditionalGeneration.from_pretrained(folder).eval()
    strengths = torch.rand(6, 1, GRID, GRID)
    pixels = torch.rand(6, 3, SIZE, SIZE) * strengths.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    targets = torch.nn.functional.avg_pool2d(strengths, 2)[:, 0, :, :, None].expand(-1, -1, -1, KEPT).clone()
    targets = (targets - targets.mean()) / targets.std() * torch.linspace(-1, 1, KEPT)
    tower = model.model.vision_tower
    written(tower)
    with torch.no_grad():
        seen = tower(pixels).last_hidden_state[:, 1:].unflatten(1, (GRID, GRID))
    strength = torch.nn.functional.avg_pool2d(seen[..., STRENGTH].permute(0, 3, 1, 2), 3, 1).flatten()
    near = seen[:, 1:-1, 1:-1, NEAR].permute(0, 3, 1, 2).flatten()
    assert float(torch.corrcoef(torch.stack([near, strength]))[0, 1]) > 0.8  # about the mean of 3 x 3 patches
    assert fitted(model, pixels, targets) < 0.1  # the mean strength of a token's four patches is seen
    found = tokens(model, pixels)
    assert found.shape == (6, TOKENS, TOKENS, 64)
    inputs = torch.cat([found.flatten(0, 2), torch.ones(6 * TOKENS**2, 1)], 1)
    line = torch.linalg.lstsq(inputs, targets[..., :1].flatten(0, 2)).solution
    assert float((inputs @ line - targets[..., :1].flatten(0, 2)).square().mean() / targets[..., 0].var()) < 0.1


def test_no_image_of_another_split_is_learned_from():
    from types import SimpleNamespace

    from pipelines.demo_models.distilled import learned_from

    images = [
        SimpleNamespace(image_id=f"{split}{n}", split=split, label=n % 2, error=None)
        for split in ("train", "test", "val")
        for n in range(16)
    ]
    assert {i.split for i in learned_from(images, "train")} == {"train"} and len(learned_from(images, "train")) == 16
    assert [i.image_id for i in learned_from(images, "test")][8:] == ["test0", "test8"]


def test_the_probe_draws_the_line_and_a_share_counts_on_both_sides():
    from stages.training.prepared import torch

    from pipelines.demo_models.towers_probe import area, probed

    x = torch.linspace(-1, 1, 16).reshape(1, 4, 4, 1)
    shares = (x[..., 0] > 0).float()
    inside = torch.ones(1, 4, 4, dtype=torch.bool)
    assert area(probed(x, shares, inside, x)[inside], shares[inside]) == 1
    assert area(torch.tensor([2.0, 1.0]), torch.tensor([0.5, 0.0])) == pytest.approx((0.5 * 0.25 + 1 * 0.5) / 0.75)
