"""VMAD's model as a whole, against loops, stock SAM and itself: layers, mask decoder, structure loss, batches."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate
from torch.nn.functional import normalize as unit

from stages.datasets.images import load_rgb
from stages.vmad.build import new_model
from stages.vmad.config import LossWeights
from stages.vmad.data import sample
from stages.vmad.dssl import random_boxes
from stages.vmad.score import model_input, predict
from tests.vmad_world import SMALL, batch_of, made, shaken


def test_the_projector_gets_the_layers_of_eq_21(llava, sam):
    """Patch tokens of the n = 4 layers before the one that LLaVA takes, and of that, without the class token."""
    model, _ = made(llava, sam)
    model.eval()
    seen, pixels = [], torch.randn(2, 3, 56, 56)
    model.projector.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    with torch.no_grad():
        model.base.get_image_features(pixels)
        layers = model.base.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert len(layers) == 7 and seen[0].shape == (2, 16, 5 * 32), "the embeddings and six layers"
    for n, one in enumerate(seen[0].chunk(5, -1)):
        assert (one - layers[1 + n][:, 1:]).abs().max() < 1e-6, "L-n-1 to L-1"


def test_the_mask_decoder_is_used_as_sam_uses_it(llava, sam, pictures):
    """Stock SAM whose prompt encoder is made to give our prompt: the same positions, dense prompt and mask."""
    from transformers import SamModel

    model, text = made(llava, sam)
    shaken(model).eval()
    batch, stock = batch_of(model, text, pictures[:2]), SamModel.from_pretrained(sam)
    stock.mask_decoder.load_state_dict(model.sam.mask_decoder.state_dict())
    states = torch.randn(2, 64)
    with torch.no_grad():
        prompts = model.gamma(states)[:, None, None]
        stock.prompt_encoder.register_forward_hook(lambda _, given, out: (prompts, out[1]))
        inputs = model.for_sam(batch["sam_inputs"], batch["content_sizes"])
        theirs = stock(pixel_values=inputs, input_points=torch.zeros(2, 1, 1, 2), multimask_output=False).pred_masks
        ours = model.mask_logits(states, model.visual_features(inputs))
    assert ours.shape == (2, 32, 32) and (ours - theirs[:, 0, 0]).abs().max() < 1e-5
    assert (ours[0] - ours[1]).abs().max() > 1e-3


def test_the_structure_loss_from_its_parts(llava, sam, pictures):
    """Eq. 8 to 17 again in loops, with the tokens that the model gave; and whom the loss reaches."""
    model, text = made(llava, sam)
    shaken(model).train()
    batch = batch_of(model, text, pictures[:2] + pictures[3:])
    classes, content_sizes = batch["classes"], batch["content_sizes"]
    inputs = model.for_sam(batch["sam_inputs"], content_sizes)
    features = model.visual_features(inputs)
    given, tokens, plain, crops = [], [], model.pooled_tokens, model.crops
    model.crops = lambda *of: given.append(crops(*of)) or given[-1]

    def watched(layers):
        tokens.append(plain(layers))
        return tokens[-1]

    model.pooled_tokens = watched
    torch.manual_seed(3)
    value = model.structure_loss(features, inputs, content_sizes, classes)
    torch.manual_seed(3)
    drawn = model.memory.draw(classes)
    boxes = random_boxes(content_sizes, 3, 16).long()
    patches, images, total = tokens[0].detach().reshape(3, 3, -1), tokens[1].detach(), 0.0
    images = images.reshape(*drawn.valid.shape, -1)
    for b in range(3):
        told = model.base.get_input_embeddings()(drawn.described[b])[drawn.described_mask[b] > 0].mean(0)
        theta = [images[b, m] + model.dssl.meta(told).detach() for m in range(drawn.valid.shape[1])]
        for j in range(3):
            x1, y1, x2, y2 = boxes[b, j].tolist()
            crop = batch["sam_inputs"][b, :, y1:y2, x1:x2].float() / 255 - model.clip_mean[:, None, None]
            crop = avg_pool2d(interpolate((crop / model.clip_std[:, None, None])[None], 112, mode="bilinear")[0], 2)
            inside = slice(4, -4)  # at the edge ours sees the pixel beside the box
            assert (given[0].reshape(3, 3, 3, 56, 56)[b, j] - crop)[:, inside, inside].abs().max() < 1e-4
            v = unit(_roi_by_hand(features[b], x1 / 8, y1 / 8, x2 / 8, y2 / 8), dim=0)
            t = unit(patches[b, j], dim=0)
            p = torch.stack([(unit(z, dim=0) @ v / 0.07).exp() for z in drawn.features[b]]) * drawn.valid[b]
            q = torch.stack([(unit(z, dim=0) @ t / 0.07).exp() for z in theta]) * drawn.valid[b]
            p, q = p / p.sum(), q / q.sum()
            total += sum(float(-p[m] * q[m].log()) for m in range(len(p)) if drawn.valid[b, m] and drawn.normal[b, m])
    assert float(value.detach()) == pytest.approx(total / 9, rel=1e-4)
    value.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any("dssl.meta" in n for n in reached) and any("offsets" in n for n in reached)
    assert all("multi_modal_projector" in n or "dssl.meta" in n for n in reached), "no heads, no decoder, no SAM"


def _roi_by_hand(feature, x1, y1, x2, y2):
    """Mean of 2 x 2 bilinear points of a box, in cells; feature: (C, H, W)."""
    found = []
    for fy in (0.25, 0.75):
        for fx in (0.25, 0.75):
            y = min(max(y1 + fy * (y2 - y1) - 0.5, 0), feature.shape[1] - 1)
            x = min(max(x1 + fx * (x2 - x1) - 0.5, 0), feature.shape[2] - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, feature.shape[1] - 1), min(left + 1, feature.shape[2] - 1)
            above = feature[:, top, left] * (1 - x + left) + feature[:, top, right] * (x - left)
            below = feature[:, low, left] * (1 - x + left) + feature[:, low, right] * (x - left)
            found.append(above * (1 - y + top) + below * (y - top))
    return torch.stack(found).mean(0)


@pytest.mark.slow
def test_prompts_of_different_lengths_answer_as_they_do_alone(llava, sam, pictures):
    model, text = made(llava, sam)
    shaken(model).eval()
    prompts = [
        text.prompt(sample(i, "answering", query=q, answer="").prompt)
        for i, q in zip(pictures, ("description", "a long and winding list of everything", "impact", "x"), strict=True)
    ]
    assert len({len(p) for p in prompts}) == 4
    images = [model_input(model, load_rgb(i.file)) for i in pictures]
    together = predict(model, text, images, prompts, 12, "fp32")
    for n, one in enumerate(together):
        (alone,) = predict(model, text, images[n : n + 1], prompts[n : n + 1], 12, "fp32")
        assert alone.response == one.response and (alone.map - one.map).abs().max() < 1e-5, n


def test_in_bf16_what_is_trained_and_what_tells_positions_keeps_its_digits(llava, sam):
    from transformers import SamModel

    torch.manual_seed(0)
    model, _ = new_model(llava, sam, SMALL, LossWeights(), dtype=torch.bfloat16)
    stock = SamModel.from_pretrained(sam)
    assert next(model.sam.vision_encoder.parameters()).dtype == torch.bfloat16
    for name, p in stock.mask_decoder.named_parameters():
        assert (model.sam.mask_decoder.get_parameter(name) == p).all(), name
    found = model.sam.get_image_wide_positional_embeddings()
    assert (found == stock.get_image_wide_positional_embeddings()).all() and found.dtype == torch.float32
