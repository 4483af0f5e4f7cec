"""DSSL's target: boxes on defects, masses and AUROC by hand, the heads' objective and training, a memory of patches."""

import json
import re
from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor

from stages.base.errors import InputError
from stages.vmad.build import build_memory
from stages.vmad.dssl import boxes_at, overall_features, roi
from stages.vmad.memory import Memory, choose_memory
from stages.vmad.separation import (
    PATCHES,
    Separation,
    auroc,
    halves,
    heads_loss,
    measure,
    normal_mass,
    patches_of,
    train_heads,
)
from stages.vmad.train import run as train
from tests.vmad_stages_world import QUIET, config
from tests.vmad_world import SMALL, made

CLASSES = [("d", "metal_nut"), ("d", "tile")]


def test_boxes_on_a_defect_have_their_middle_in_it_and_stay_in_the_frame():
    mask = torch.zeros(64, 64)
    mask[10:12, 50:60] = 1
    mask[0, 0] = 1
    torch.manual_seed(0)
    boxes = boxes_at(mask, (40, 60), 200, 16)
    assert ((boxes[:, 2:] - boxes[:, :2]) == 16).all() and (boxes >= 0).all()
    assert (boxes[:, 2] <= 60).all() and (boxes[:, 3] <= 40).all()
    corner = (boxes[:, :2] == 0).all(1)
    assert 0 < corner.sum() < 60, "one pixel of 21: the box is moved into the frame"
    for x1, y1, _, _ in boxes[~corner].tolist():
        assert y1 in (2, 3) and (42 <= x1 <= 44), "the middle, 8 px from its corner, on the mask, or at the right edge"
    assert boxes_at(mask, (12, 60), 3, 16)[:, 3].tolist() == [12] * 3, "as low as the image is"


def test_masses_and_auroc_by_hand():
    p = Tensor([[[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]]])
    assert normal_mass(p.log(), torch.tensor([[True, True, False]]))[0].tolist() == pytest.approx([0.7, 0.2])
    assert auroc(Tensor([3.0, 1.0]), Tensor([2.0, 1.0])) == (1 + 1 + 0 + 0.5) / 4
    assert auroc(Tensor([1.0]), Tensor([0.0, 0.0])) == 1


def test_the_heads_objective_by_hand():
    normal, defect = Tensor([0.5, 0.8, 0.25]), torch.tensor([False, False, True])
    value = heads_loss(normal.log(), (1 - normal).log(), defect)
    assert float(value) == pytest.approx(-(log(0.5) + log(0.8)) / 2 - log(0.75))
    assert float(heads_loss(normal.log(), (1 - normal).log(), torch.ones(3, dtype=torch.bool))) == pytest.approx(
        -(log(0.5) + log(0.2) + log(0.75)) / 3
    )


def test_what_is_said():
    found = Separation(0.512, 0.509, 0.47, 0.5, 30, 90, 8)
    assert found.said("identity") == (
        "DSSL's target (identity), normal mass 0.512 of 30 defect patches and 0.509 of 90 normal ones of 8 images:"
        " AUROC 0.470; by the language model's side 0.500. It hardly separates them: --dssl-target trained-heads or"
        " patches"
    )
    assert replace(found, auroc=0.9).said("patches").endswith("side 0.500")


def test_images_to_fit_and_to_measure_are_others(pictures):
    many = [replace(i, image_id=f"{i.image_id}-{n}") for i in pictures for n in range(4)]
    fit, held = halves(many, many[:2], 0)
    names = [{i.image_id for i in half} for half in (fit, held)]
    assert not names[0] & names[1] and not (names[0] | names[1]) & {i.image_id for i in many[:2]}
    assert [sum(i.label for i in half) for half in (fit, held)] == [4, 4] and (len(fit), len(held)) == (7, 7)
    assert halves(many[::-1], many[:2], 0) == (fit, held) != halves(many, many[:2], 1)
    fit, held = halves([replace(pictures[1], masks=()), pictures[0]], (), 0)
    assert fit == held == pictures[:1], "an anomalous image without a mask has no defect patch"


@pytest.mark.slow
def test_what_is_measured_is_eq_11_over_the_normal_images(llava, sam, pictures):
    model, text = made(llava, sam)
    model.memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2)
    before = torch.get_rng_state()
    found = measure(model, pictures, CLASSES, 3)
    assert (torch.get_rng_state() == before).all(), "draws nothing that the training would draw"
    assert found == measure(model, pictures, CLASSES, 3) and found.images == 4
    torch.manual_seed(3)
    masses, defects = [], []
    for image in pictures:
        one = patches_of(model, image)
        assert len(one.defect) == one.boxes.shape[1] and one.defect.sum() == PATCHES * image.label
        drawn = model.memory.draw(torch.tensor([CLASSES.index((image.dataset, image.category))]))
        v = torch.nn.functional.normalize(roi(one.features, one.boxes / 8)[0, :, :, 0, 0], dim=-1)
        z = torch.nn.functional.normalize(drawn.features[0], dim=-1)
        p = ((v @ z.T) / 0.07).exp()
        masses.append((p * drawn.normal[0]).sum(1) / p.sum(1))
        defects.append(one.defect)
    mass, defect = torch.cat(masses), torch.cat(defects)
    assert (found.defect, found.normal) == pytest.approx((float(mass[defect].mean()), float(mass[~defect].mean())))
    assert found.auroc == pytest.approx(auroc(-mass[defect], -mass[~defect]), abs=1e-3)
    assert (found.defects, found.normals) == (int(defect.sum()), int((~defect).sum()))
    assert measure(model, pictures[::2], CLASSES, 3) is None, "normal images alone"


@pytest.mark.slow
def test_trained_heads_separate_what_the_identity_does_not(llava, sam, pictures, monkeypatch):
    """Features whose first number tells a defect but is small beside the others."""
    model, text = made(llava, sam)
    model.memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2)
    torch.manual_seed(0)

    def features(image):
        f = torch.randn(1, 32, 8, 8) + 3
        f[:, 0] = 0
        if image.label:
            f[:, 0] += patch_map(image)
        return f

    def patch_map(image):
        mask = model.transform.mask(image.masks, model.transform.content_size((image.height, image.width)))
        return torch.nn.functional.avg_pool2d(mask[None].float(), 8)[0]

    known = {}
    monkeypatch.setattr(model, "visual_features", lambda inputs: known[round(float(inputs.sum()), 1)])
    for image in pictures:
        from stages.datasets.images import load_rgb

        rgb = load_rgb(image.file)
        content = torch.tensor([model.transform.content_size(rgb.shape)])
        known[round(float(model.for_sam(model.transform.sam_input(rgb)[None], content).sum()), 1)] = features(image)
    model.memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2)
    plain = measure(model, pictures, CLASSES, 3)
    train_heads(model, pictures, CLASSES, 0)
    assert not any(p.requires_grad for head in (model.dssl.local, model.dssl.overall) for p in head.parameters())
    found = measure(model, pictures, CLASSES, 3)
    assert plain.auroc < 0.8 and found.auroc > 0.95 and found.defect < 0.3 < 0.7 < found.normal


@pytest.mark.slow
def test_a_memory_of_patches_holds_defects_and_normal_patches(llava, sam, pictures):
    model, text = made(llava, sam, replace(SMALL, target="patches"))
    whole = build_memory(choose_memory(pictures, 1.0, 0), made(llava, sam)[0], text, 2)
    torch.manual_seed(1)
    held = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2)
    torch.manual_seed(1)
    pixels = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2, layers=False)
    assert isinstance(held, Memory) and held.images.shape == (16, 16, 160) and whole.images.shape == (4, 16, 160)
    assert held.normal.tolist() == [n % 2 == 0 for n in range(4) for _ in range(4)]
    assert held.owner.tolist() == [0] * 8 + [1] * 8 and pixels.images.shape == (16, 3, 56, 56)
    assert (held.features == pixels.features).all() and held.features.shape == (16, 32)
    assert (model.clip_layers(model.for_clip(pixels.images)) - held.images).abs().max() < 1e-5
    from stages.datasets.images import load_rgb

    rgb, image = load_rgb(pictures[1].file), pictures[1]
    content = model.transform.content_size(rgb.shape)
    torch.manual_seed(1)
    from stages.vmad.dssl import random_boxes

    random_boxes(torch.tensor([content]), 4, 16)  # of the normal image before it
    random_boxes(torch.tensor([content]), 4, 16)
    boxes = boxes_at(model.transform.mask(image.masks, content), content, 4, 16)
    inputs = model.for_sam(model.transform.sam_input(rgb)[None], torch.tensor([content]))
    f = model.visual_features(inputs)
    assert (roi(f, boxes[None] / 8)[0, :, :, 0, 0] - held.features[4:8]).abs().max() < 1e-5
    assert (overall_features(f, torch.tensor([content]), 8)[0] - whole.features[1]).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("target", ["identity", "trained-heads", "patches"])
def test_a_training_says_and_notes_how_its_target_separates(spots, models, tmp_path, target, capsys):
    from stages.base.config import RunOptions

    few = {"epochs": 0.5, "tasks": "segmentation", "dssl_target": target, "questions": None}
    train(config(spots, models, tmp_path / "v", **few), RunOptions())
    said = " ".join(capsys.readouterr().err.split())
    assert f"before training: DSSL's target ({target}), normal mass 0." in said and "after training: DSSL's" in said
    assert re.search(r"needs about [1-9]\d*\.\d MiB on the CPU: ", said)
    assert "4 images of 2 classes, CLIP's layers kept" in said
    notes = json.loads((tmp_path / "v/_checkpoint/vmad.json").read_text())["notes"]
    before, after = notes["separation before training"], notes["separation after training"]
    assert before["auroc"] == after["auroc"] and 0 <= before["auroc"] <= 1 and before["defects"] > 0
    with pytest.raises(InputError, match="made with other settings .*target"):
        train(
            config(
                spots,
                models,
                tmp_path / "v",
                **few | {"dssl_target": "patches" if target == "identity" else "identity"},
            ),
            QUIET,
        )


def test_targets_that_are_refused(spots, models, tmp_path):
    for more, said in (
        ({"dssl_target": "x"}, "--dssl-target x: expected identity, trained-heads, patches"),
        ({"dssl_target": "patches", "tasks": "vqa"}, "--dssl-target patches: needs masks, and --tasks vqa"),
    ):
        with pytest.raises(InputError, match=said):
            config(spots, models, tmp_path / "o", **more).check()
