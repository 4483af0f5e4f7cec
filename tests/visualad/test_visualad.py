"""VisualAD's equations by hand, the released code's formulas, positions, filter, optimiser."""

import json
from dataclasses import asdict
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import visualad_reference as reference
from stages.base.errors import InputError
from stages.visualad.backbone import Backbone, load_backbone
from stages.visualad.config import POSITIONS, RECORD, WEIGHTS, ScoreVisualadConfig, VisualAdSettings, sigma_of
from stages.visualad.loss import dice, focal, losses, margin
from stages.visualad.model import (
    PositionCode,
    SpatialAwareCrossAttention,
    VisualAD,
    contrast,
    image_scores,
    self_alignment,
    smoothed,
    upsampled,
)
from tests.tiny import tiny_clip_vision

SMALL = VisualAdSettings(layers=(1, 3, 4), size=56)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip_vision(tmp_path_factory.mktemp("clip"))


def made(clip, settings=SMALL, seed=1):
    """A model whose every parameter is away from its start."""
    backbone, _, _ = load_backbone(str(clip))
    torch.manual_seed(seed)
    model = VisualAD(backbone, settings)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn_like(p)
    return model.eval()


@pytest.mark.parametrize("size", [56, 84])
def test_equals_the_released_formulas(clip, size):
    """Patches, enhanced tokens, maps and losses in float32, at the native and at an interpolated resolution."""
    from dataclasses import replace

    model = made(clip, replace(SMALL, size=size))
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    masks = (torch.rand(3, size, size, generator=torch.Generator().manual_seed(1)) < 0.2).float()
    masks[2] = 0
    labels = torch.tensor([1.0, 1.0, 0.0])
    with torch.no_grad():
        output = model(pixels)
        features, enhanced, maps = reference.forward(model, pixels)
        expected = reference.objective(enhanced, maps, masks, labels)
        found = losses(output, masks, labels, "code")
        _, patches = model.backbone(pixels, model.tokens + model.positions, SMALL.layers)
    for ours, theirs in zip(patches, features, strict=False):
        assert (model.norm(ours) - theirs).abs().max() < 1e-5
    assert (output.tokens - enhanced[-1]).abs().max() < 1e-5
    assert (output.maps - maps).abs().max() < 1e-5 and output.maps.std() > 0.01
    for name, value in zip(("cls", "seg", "ctr", "loss"), expected, strict=True):
        assert float(found[name]) == pytest.approx(float(value), abs=1e-5), name


def test_gradients_are_those_of_the_released_formulas_and_the_backbone_has_none(clip):
    model, plain = made(clip), made(clip)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    masks, labels = (pixels[:, 0] > 1).float(), torch.tensor([1.0, 0.0])
    losses(model(pixels), masks, labels, "code")["loss"].backward()
    _, enhanced, maps = reference.forward(plain, pixels)
    reference.objective(enhanced, maps, masks, labels)[-1].backward()
    other = dict(plain.named_parameters())
    for name, p in model.named_parameters():
        if name.startswith("backbone."):
            assert p.grad is None and not p.requires_grad
        else:
            assert (p.grad - other[name].grad).abs().max() < 1e-5, name
    assert model.tokens.grad.abs().max() > 1e-6


def test_recomputed_activations_change_nothing(clip):
    pixels = torch.randn(2, 3, 56, 56)
    masks, labels, gradients = (pixels[:, 0] > 1).float(), torch.tensor([1.0, 0.0]), []
    for recompute in (False, True):
        model = made(clip)
        model.backbone.recompute = recompute
        losses(model(pixels), masks, labels, "code")["loss"].backward()
        gradients.append(model.tokens.grad)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-6 < gradients[0].abs().max()


def test_sca_of_the_text_by_hand():
    """Eq. 2 to 5: one anchor (1, 0), two patches, no positions, width 2."""
    sca = SpatialAwareCrossAttention(2, 1, 2, VisualAdSettings(variant="paper", anchors=1, position="none"))
    with torch.no_grad():
        sca.anchors.copy_(Tensor([[1.0, 0.0]]))
        sca.gate.weight.copy_(Tensor([[0.0, 2.0]]))
        sca.scale.copy_(Tensor([0.5])[0])
    patches, token = Tensor([[[2.0, 1.0], [0.0, 3.0]]]), Tensor([[[0.3, 0.7]]])
    a = exp(2 / 2**0.5) / (exp(2 / 2**0.5) + 1)
    collected = np.array([2 * a, a + 3 * (1 - a)])
    gate = 1 / (1 + exp(-1.4))
    expected = np.array([0.3, 0.7]) + 0.5 * gate * collected
    assert sca(token, patches)[0, 0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert sca.attention(patches)[0, 0].tolist() == pytest.approx([a, 1 - a], abs=1e-6)


def test_saf_contrast_score_and_maps_by_hand():
    saf = self_alignment(1, code=False)
    with torch.no_grad():
        for layer, (w, b) in ((0, (2.0, 1.0)), (3, (3.0, -1.0))):
            saf[layer].weight.fill_(w)
            saf[layer].bias.fill_(b)
    hidden = 2 * 0.5 + 1
    gelu = hidden * 0.5 * (1 + torch.erf(torch.tensor(hidden / 2**0.5)))
    assert saf(Tensor([[0.5]])).item() == pytest.approx(float(3 * gelu - 1), abs=1e-6)  # Eq. 6
    patches, tokens = Tensor([[[3.0, 4.0]]]), Tensor([[[1.0, 0.0], [0.0, -2.0]]])
    assert float(contrast(patches, tokens)) == pytest.approx(0.6 + 0.8, abs=1e-6)  # Eq. 7
    maps = torch.arange(450.0).reshape(1, 15, 30)  # 1 %: 4.5 pixels
    assert float(image_scores(maps, "code")) == 447.0 and float(image_scores(maps, "paper")) == 447.5  # Eq. 9
    assert float(image_scores(torch.ones(1, 3, 3), "paper")) == 1.0, "at least one pixel"
    assert upsampled(Tensor([[0.0, 1.0, 2.0, 3.0]]), (4, 4))[0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_losses_by_hand():
    p, y = Tensor([[[0.9, 0.2]]]), Tensor([[[1.0, 0.0]]])
    # targets are clamped: pt = 0.99999 * 0.9 + 1e-5 * 0.1 + 1e-5, and 1e-5 * 0.2 + 0.99999 * 0.8 + 1e-5
    pts = 0.99999 * 0.9 + 1e-5 * 0.1 + 1e-5, 1e-5 * 0.2 + 0.99999 * 0.8 + 1e-5
    assert float(focal(p, y)) == pytest.approx(-sum((1 - t) ** 2 * log(t) for t in pts) / 2, abs=1e-7)
    assert float(dice(p, y)) == pytest.approx(1 - (2 * 0.9 + 1) / (1.1 + 1 + 1), abs=1e-6)
    assert float(dice(p, 0 * y)) == pytest.approx(1 - 1 / 2.1, abs=1e-6), "no anomalous pixel"
    tokens = Tensor([[[1.0, 0.0], [3.0, 4.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    assert float(margin(tokens)) == pytest.approx((0.6 + 0.5 + 0) / 2, abs=1e-6)


@pytest.mark.parametrize("without", [("sca",), ("saf",), ("saf", "sca"), ("focal",), ("dice",), ("contrast",)])
def test_what_table_2_leaves_out(without, clip):
    """The whole model's weights in one without some parts: without SCA the tokens stay as they are, without SAF the
    patches do; a loss that is left out is in no part."""
    from dataclasses import replace

    whole, part = made(clip), made(clip, replace(SMALL, without=without))
    part.load_state_dict(whole.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    masks, labels = (pixels[:, 0] > 1).float(), torch.tensor([1.0, 0.0])
    with torch.no_grad():
        output = part(pixels)
        tokens, patches = part.backbone(pixels, part.tokens + part.positions, SMALL.layers)
        own, features = part.norm(tokens[-1]), part.norm(patches[1])
        enhanced = own if "sca" in without else whole.sca[1](own, features)
        aligned = features if "saf" in without else whole.saf[1](features)
        found = losses(output, masks, labels, "code", without)
        full = losses(output, masks, labels, "code")
    assert torch.allclose(output.maps[1], upsampled(contrast(aligned, enhanced), (56, 56)), atol=1e-6)
    names = {n.partition(".")[0] for n in part.trained_tensors()}
    assert names == {"tokens", "positions", "norm", "sca", "saf"} - set(without)
    wanted = {
        "focal": {"seg": sum(dice(p, masks) for p in output.maps.sigmoid())},
        "dice": {"seg": sum(focal(p, masks) for p in output.maps.sigmoid())},
    }.get(without[0], {})
    expected = {n: v for n, v in {**full, **wanted}.items() if n != "loss" and (n, without) != ("ctr", ("contrast",))}
    assert found.keys() == expected.keys() | {"loss"}
    assert all(float(found[n]) == pytest.approx(float(v), abs=1e-6) for n, v in expected.items())
    assert float(found["loss"]) == pytest.approx(float(sum(expected.values())), abs=1e-6)


def test_the_gaussian_is_scipys():
    from scipy.ndimage import gaussian_filter

    maps = torch.randn(2, 40, 25, dtype=torch.float64)
    theirs = np.stack([gaussian_filter(m, 4.0) for m in maps.numpy()])
    assert smoothed(maps).numpy() == pytest.approx(theirs, abs=1e-12)
    assert smoothed(maps, 0.0) is maps
    assert smoothed(maps[:, :5, :5]).numpy() == pytest.approx(
        np.stack([gaussian_filter(m, 4.0) for m in maps[:, :5, :5].numpy()]), abs=1e-12
    ), "smaller than the kernel"


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_weights_start_as_the_released_code_starts_them(variant, clip):
    """Tokens N(0, 1) 0.1 / sqrt(C); linears uniform in +-sqrt(6 / 2C), whose deviation is 1 / sqrt(C); biases 0."""
    backbone, _, _ = load_backbone(str(clip))
    width, bound = backbone.width, sqrt(3 / backbone.width)
    torch.manual_seed(0)
    models = [VisualAD(backbone, VisualAdSettings(variant=variant, layers=(2, 4), size=56)) for _ in range(40)]
    tokens = torch.stack([m.tokens for m in models]).detach()
    assert tokens.std() == pytest.approx(0.1 / sqrt(width), rel=0.05)
    places = {"saf0": lambda m: m.saf[0][0], "saf1": lambda m: m.saf[1][3]}
    if variant == "code":
        places |= {name: lambda m, name=name: getattr(m.sca[1], name) for name in ("query", "key", "value", "out")}
    for linear_of in places.values():
        weights = torch.stack([linear_of(m).weight for m in models]).detach()
        assert weights.std() == pytest.approx(1 / sqrt(width), rel=0.02)
        assert 0.999 * bound < weights.abs().max() <= bound
        assert all(linear_of(m).bias is None or not linear_of(m).bias.any() for m in models)


@pytest.mark.parametrize(("variant", "asked", "used"), [("code", None, 4), ("paper", None, 0), ("paper", 2.0, 2)])
def test_the_gaussian_is_the_variants_own(variant, asked, used, tmp_path):
    record = {"settings": asdict(VisualAdSettings(variant=variant)), "backbone": "b"}
    (tmp_path / RECORD).write_text(json.dumps(record))
    save_file({}, tmp_path / WEIGHTS)
    config = ScoreVisualadConfig(manifest=tmp_path, checkpoint=tmp_path, out=tmp_path / "s", sigma=asked)
    assert sigma_of(config) == used


def test_the_texts_variant_differs_where_it_should(clip):
    model = made(clip, VisualAdSettings(variant="paper", layers=(2, 4), size=56))
    assert not model.norm.weight.requires_grad and model.positions.requires_grad
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        output = model(pixels)
        tokens, patches = model.backbone(pixels, model.tokens + model.positions, (2, 4))
        own = model.sca[0](model.norm(tokens[0]), model.norm(patches[0]))  # tokens of the layer itself
        first = upsampled(contrast(model.saf[0](model.norm(patches[0])), own), (56, 56))
    assert (output.maps[0] - first).abs().max() < 1e-6


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions(kind):
    code = PositionCode(kind, 8, 2, 3)
    if kind == "none":
        assert code(6) == 0
        return
    assert code(6).shape == (6, 8) and len({tuple(r) for r in code(6).tolist()}) == 6
    if kind == "2d":
        assert torch.allclose(code(6)[4], code.rows[1] + code.cols[1])
    if kind == "1d":
        assert len(code.table) == 1536 and torch.equal(code(4), code.table[:4])
    with pytest.raises(InputError, match="score at the size"):
        code(2000)


def families(folder):
    """Tiny models of every family, with (class and register tokens)."""
    import transformers as t

    same = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
    return {
        "dinov2": (t.Dinov2Model(t.Dinov2Config(**same)), 1),
        "registers": (t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**same, num_register_tokens=3)), 4),
        "dinov3": (t.DINOv3ViTModel(t.DINOv3ViTConfig(**same, intermediate_size=64, num_register_tokens=2)), 3),
        "siglip": (t.SiglipVisionModel(t.SiglipVisionConfig(**same, intermediate_size=64)), 0),
    }


@pytest.mark.parametrize("family", ["dinov2", "registers", "dinov3", "siglip"])
def test_every_family_takes_two_tokens_and_otherwise_computes_what_it_did(family, tmp_path):
    """With the tokens masked away nothing changes: that cannot be had, but without tokens the last layer is the
    model's own, and with them the patches keep their number and order."""
    torch.manual_seed(0)
    vit, prefix = families(tmp_path)[family]
    vit.save_pretrained(tmp_path / family)
    from transformers import BitImageProcessor

    BitImageProcessor(size={"shortest_edge": 56}).save_pretrained(tmp_path / family)
    backbone, mean, _ = load_backbone(str(tmp_path / family))
    assert len(mean) == 3
    pixels = torch.randn(2, 3, 84, 84)
    with torch.no_grad():
        more = {"interpolate_pos_encoding": True} if family == "siglip" else {}
        theirs = backbone.vit(pixels, **more).last_hidden_state
        _, patches = backbone(pixels, torch.zeros(0, 32), (1, 3))
        inner = getattr(backbone.vit, "vision_model", backbone.vit)
        norm = next(getattr(inner, n) for n in ("layernorm", "norm", "post_layernorm") if hasattr(inner, n))
        assert (norm(patches[-1]) - theirs[:, prefix:]).abs().max() < 1e-5
        tokens, with_two = backbone(pixels, torch.randn(2, 32), (1, 3))
    assert with_two[0].shape == (2, 36, 32) and tokens[-1].shape == (2, 2, 32)
    assert (with_two[0] - patches[0]).abs().max() > 1e-4, "patches see the tokens"
    output = VisualAD(backbone, VisualAdSettings(layers=(1, 3), size=84))(pixels)
    assert output.maps.shape == (2, 2, 84, 84)


def test_weights_kept_in_bf16_give_what_autocast_gives(clip):
    backbone, _, _ = load_backbone(str(clip))
    pixels, tokens = torch.randn(2, 3, 56, 56), torch.randn(2, backbone.width)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = backbone(pixels, tokens, (2, 4))
        kept = backbone.in_bf16()(pixels, tokens, (2, 4))
    assert all(torch.equal(a, b) for x, y in zip(plain, kept, strict=True) for a, b in zip(x, y, strict=True))
    assert {p.dtype for n, p in backbone.vit.named_parameters() if "mlp" in n} == {torch.bfloat16}


def test_what_a_backbone_cannot_have(clip, tmp_path, bert):
    backbone, _, _ = load_backbone(str(clip))
    for wrong, said in (
        ({"size": 60}, "no multiple of the backbone's patch of 14 px; the nearest is 56"),
        ({"layers": (1, 5)}, "rising numbers from 1 to 4"),
        ({"layers": (3, 1)}, "rising numbers"),
        ({"variant": "text"}, "--variant text"),
        ({"position": "3d"}, "--position 3d"),
        ({"anchors": 0}, "--anchors 0"),
        ({"without": ("sca", "sfa")}, "--without sfa: expected some of sca, saf, focal, dice, contrast"),
    ):
        with pytest.raises(InputError, match=said):
            VisualAD(backbone, VisualAdSettings(**{"layers": (1, 4), "size": 56} | wrong))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone(str(tmp_path))
    from transformers import CLIPImageProcessor, ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).save_pretrained(tmp_path / "resnet")
    CLIPImageProcessor().save_pretrained(tmp_path / "resnet")
    with pytest.raises(InputError, match="a resnet has no patch tokens"):
        load_backbone(str(tmp_path / "resnet"))
    assert isinstance(backbone, Backbone) and not backbone.train().vit.training
