"""What VMAD's training needs of a GPU: the count against models, what torch saves, and the real checkpoints' shapes."""

from dataclasses import replace

import pytest
import torch

from stages.base.errors import InputError
from stages.vmad import memory
from stages.vmad.build import build_memory, check_sam, read_llava, without_storage
from stages.vmad.config import PROJECTORS, VmadSettings
from stages.vmad.memory import choose_memory, fits_host
from stages.vmad.model import trainable
from stages.vmad.needs import GIB, Needs, clip_bytes, kept, needs, stored
from tests.vmad_world import SMALL, T_X, batch_of, made, shaken


def real():
    """Configurations of LLaVA-1.5-7B and SAM ViT-H."""
    from transformers import LlavaConfig, SamConfig

    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    }
    text = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}  # LlamaConfig's own is 7B's
    huge = {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
        "mlp_dim": 5120,
        "num_pos_feats": 128,
    }
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000), SamConfig(vision_config=huge)


@pytest.mark.slow
def test_the_default_fits_the_paper_s_24_gib():
    llava, sam = real()
    model = without_storage(llava, sam, VmadSettings(), 32002, torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == 7_763_111_136
    assert sum(p.numel() for p in trainable(model).values()) == 82_948_144
    common = {"llava": llava, "sam": sam, "settings": VmadSettings(), "seg": 32002, "bf16": True}
    eight = needs(**common, tokens=300, micro_batch=2, processes=8)
    assert eight.frozen == stored(p for p in model.parameters() if not p.requires_grad)
    assert eight.trained == 82_948_144 * (4 + 4 + 8 + 2 + 4)
    assert 20 * GIB < eight.total < 22 * GIB, "with room for CUDA's own half GiB"
    assert eight.said("each GPU").startswith(
        "needs about 20.9 GiB on each GPU: 14.3 frozen weights, 1.7 what is trained"
    )
    assert clip_bytes(llava, VmadSettings(), 2) == 5 * 576 * 1024 * 2
    long = {"tokens": 500, "processes": 8}
    assert needs(**common, **long, micro_batch=2).total < 24 * GIB
    assert needs(**common, **long, micro_batch=1).total < 21 * GIB
    assert needs(**common, **long, micro_batch=2, recompute=True).total < 19 * GIB


@pytest.mark.parametrize("bf16", [False, True])
def test_weights_are_counted_exactly(llava, sam, bf16):
    from stages.vmad.build import new_model
    from stages.vmad.config import LossWeights

    model, text = new_model(llava, sam, SMALL, LossWeights(), dtype=torch.bfloat16 if bf16 else torch.float32)
    n = needs(read_llava(llava, "")[0], check_sam(sam, ""), SMALL, text.seg, 100, 2, bf16)
    assert n.frozen == sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    assert n.trained == sum(p.numel() for p in trainable(model).values()) * (18 if bf16 else 16)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_what_torch_saves_in_a_step_is_what_is_counted(llava, sam, pictures, recompute):
    """The same batch under hooks that see each tensor saved; of several views of one storage one counts."""
    settings = replace(SMALL, boxes=6)
    model, text = made(llava, sam, settings)
    batch = batch_of(model, text, pictures, ("segmentation", "answering"))
    shaken(model).train()
    if recompute:
        model.recompute_activations()
    really = kept(model, lambda: model(**batch)["loss"])
    rows, tokens = batch["input_ids"].shape
    n = needs(
        *(read_llava(llava, "")[0], check_sam(sam, "")), settings, text.seg, tokens, rows, False, recompute, 1, False
    )
    counted = n.language + n.logits + n.masks + n.images
    assert 0.8 < counted / really < 1.5


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_projector_keeps_what_is_counted(llava, sam, name):
    from stages.vmad.needs import projector

    config, settings = read_llava(llava, "")[0], replace(SMALL, projector=name)
    model, text = made(llava, sam, settings)
    features = torch.randn(1, 16, settings.layers * 32)
    really = kept(model.projector, lambda: model.projector.projected(features))
    counted = projector(without_storage(config, check_sam(sam, ""), settings, text.seg, torch.float32), config)
    assert 0.9 < counted / really < 1.5, "without storage, attention keeps its weights, too"


def test_what_is_said_when_less_is_free():
    n = Needs(14 * GIB, GIB, 3 * GIB, 0, 0, 0, GIB, 2 * GIB)
    assert (n.weights, n.activations, n.total) == (15 * GIB, 4 * GIB, 19 * GIB)
    assert replace(n, sam=9 * GIB).activations == 9 * GIB, "SAM is done before the language model begins"
    assert n.check(19 * GIB) == ""
    assert n.check(18 * GIB) == (
        "18.0 GiB of the GPU are free, 19.0 are needed, counted and not measured, and it may run out:"
        " --micro-batch 1 and --checkpoint-activations need less"
    )
    with pytest.raises(InputError, match=r"14.0 GiB of the GPU are free, 19.0 are needed, 15.0 of them for weights"):
        n.check(14 * GIB)


def test_pixels_are_kept_where_the_host_has_no_room(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_on_host", lambda: 1000)
    assert fits_host(5, 100, 1) and not fits_host(6, 100, 1) and not fits_host(5, 100, 2), "half, for all processes"
    monkeypatch.undo()
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert memory.free_on_host() > 10**6
    (tmp_path / "memory.max").write_text("105\n")
    assert memory.free_on_host() == 100, "a container's limit"


@pytest.mark.slow
def test_kept_layers_and_recomputing_change_no_gradient(llava, sam, pictures):
    """Against the plain way: CLIP and projector on the memory's pixels in one go, nothing recomputed."""
    model, text = made(llava, sam)
    shaken(model).train()
    batch = batch_of(model, text, pictures)
    as_layers, found = model.memory, {}

    def plain(pixels):
        return torch.stack(list(model.base.get_image_features(pixels).pooler_output)).float().mean(1)

    for way in ("plain", "layers", "pixels"):
        model.zero_grad()
        model.memory = as_layers
        if way != "layers":
            model.memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2, layers=False, told=T_X)
            assert model.memory.images.dtype == torch.uint8 and model.memory.images.shape[1:] == (3, 56, 56)
        if way == "plain":
            model.projector.forward, model.clip_layers = model.projector.projected, lambda pixels: pixels
            model.pooled_tokens = plain
        torch.manual_seed(5)
        model(**batch)["loss"].backward()
        found[way] = {n: p.grad.clone() for n, p in trainable(model).items()}
        if way == "plain":
            del model.projector.forward, model.clip_layers, model.pooled_tokens
    assert as_layers.images.shape == (4, 16, 5 * 32) and as_layers.images.dtype == torch.float32
    for way in ("layers", "pixels"):
        for name, gradient in found["plain"].items():
            assert (gradient - found[way][name]).abs().max() <= 1e-5 * max(1, gradient.abs().max()), (way, name)


@pytest.mark.slow
def test_only_the_projector_runs_on_the_memory_at_a_step(llava, sam, pictures):
    model, text = made(llava, sam)
    batch = batch_of(model.train(), text, pictures)
    through = {"clip": 0, "projector": 0}

    def counting(part):
        def hook(module, given, kwargs, out):
            through[part] += len(given[0] if given else kwargs["pixel_values"])

        return hook

    model.base.model.vision_tower.register_forward_hook(counting("clip"), with_kwargs=True)
    model.projector.register_forward_hook(counting("projector"), with_kwargs=True)
    model(**batch)["loss"].backward()
    assert through == {"clip": 4 + 4 * 3, "projector": 4 + 4 * 3 + 4 * 2}, "images, patches; and two of the memory each"
