"""VMAD on tiny LLaVA and SAM checkpoints: vocabulary, samples, losses and gradients, saving, merging, bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.base.errors import InputError
from stages.questions.table import Question
from stages.vmad.build import new_model
from stages.vmad.checkpoint import load_vmad, merged, save_vmad
from stages.vmad.config import LossWeights
from stages.vmad.data import (
    IGNORED,
    check_lengths,
    sample,
    samples_of,
)
from stages.vmad.model import trainable
from tests.tiny import tiny_clip_vision, tiny_deep_llava
from tests.vmad_world import SMALL, batch_of, made, shaken

# -- vocabulary and samples -------------------------------------------------------------------------------


@pytest.mark.slow
def test_seg_takes_a_row_of_its_own_that_starts_at_the_mean(llava, sam):
    model, text = made(llava, sam)
    tokenizer = text.tokenizer
    assert tokenizer.convert_ids_to_tokens(model.seg) == "<seg>" and model.seg == text.seg
    assert text.answer("It is <seg>")[-2:] == [model.seg, tokenizer.eos_token_id]
    assert model.base.config.text_config.vocab_size == model.seg + 1
    rows = model.base.get_input_embeddings()(torch.arange(model.seg + 1))
    assert (rows[-1] - rows[:-1].mean(0)).abs().max() < 1e-6
    states = torch.randn(3, 64)
    logits = model.base.lm_head(states)
    assert (logits[:, -1] - logits[:, :-1].mean(1)).abs().max() < 1e-5


def test_a_spare_row_is_taken_before_the_vocabulary_grows(llava, sam, tmp_path):
    from transformers import LlavaForConditionalGeneration

    wide = LlavaForConditionalGeneration.from_pretrained(llava)
    size = wide.config.text_config.vocab_size
    wide.resize_token_embeddings(size + 8)
    shutil.copytree(llava, tmp_path / "wide")
    wide.save_pretrained(tmp_path / "wide")
    model, _ = made(str(tmp_path / "wide"), sam)
    assert model.seg == size and model.base.config.text_config.vocab_size == size + 8


def test_samples_say_what_the_templates_say(pictures):
    normal, bent = pictures[:2]
    first, second = samples_of([normal, bent], ["segmentation", "answering"])[1::2]
    assert first.prompt == (
        "USER: <image>\nAre there any abnormalities present in the metal nut? If so, please output"
        " the defect segmentation result and provide the description. ASSISTANT:"
    )
    assert first.answer == "There is no abnormality in the metal nut. It is <seg>"
    assert second.answer == "There is an abnormality in the metal nut: bent wire. It is <seg>"
    assert samples_of([bent], ["segmentation"])[0].answer == "It is <seg>"
    asked = [
        Question("q0", "i1", None, None, "impact", "What follows?", (), "It {breaks}.", False),
        Question("q1", "i1", None, None, "other", "Which?", ("a", "b"), "b", False),
        Question("q2", "i1", None, None, "other", "Open?", (), None, False),
    ]
    found = samples_of([bent], ["answering", "vqa"], asked)
    assert [(s.task, s.answer, s.segmented) for s in found] == [
        ("answering", "It {breaks}. It is <seg>", True),
        ("vqa", "It {breaks}.", False),
        ("vqa", "b", False),
    ]
    assert "provide the impact analysis" in found[0].prompt
    assert found[2].prompt == "USER: <image>\nWhich?\na\nb ASSISTANT:"


def test_samples_that_cannot_be(pictures):
    bare = replace(pictures[1], masks=())
    with pytest.raises(InputError, match="i1 is anomalous, but has no mask; segmentation needs it"):
        samples_of([pictures[0], bare], ["segmentation"])
    with pytest.raises(InputError, match="i1: no mask at .*gone.png; segmentation needs it"):
        samples_of([replace(bare, masks=(bare.file.with_name("gone.png"),))], ["segmentation"])
    q = Question("q0", "i1", None, None, "other", "What?", (), "That.", False)
    assert len(samples_of([bare], ["vqa"], [q])) == 1
    with pytest.raises(InputError, match="--tasks segment: expected segmentation"):
        samples_of(pictures, ["segment"])
    with pytest.raises(InputError, match="vqa needs --questions"):
        samples_of(pictures, ["vqa"])
    with pytest.raises(InputError, match="question q0: holds <image> or <seg>"):
        samples_of(pictures, ["vqa"], [replace(q, answer="a <seg>")])


def test_texts_hold_the_image_s_tokens_and_only_answers_are_learned(llava, sam, pictures):
    model, text = made(llava, sam)
    batch = batch_of(model, text, pictures[1:2] + pictures[:1], ("answering",))
    assert (batch["input_ids"] == text.image).sum(1).tolist() == [4, 4], "16 patches, rho = 2"
    learned = [row[row != IGNORED] for row in batch["labels"]]
    said = "There is an abnormality in the metal nut: bent wire. It is <seg><|im_end|>"
    assert text.tokenizer.decode(learned[0]) == said
    assert (
        batch["attention_mask"].sum(1).tolist()
        == (batch["labels"] != IGNORED)
        .sum(1)
        .add(torch.tensor([len(text.prompt(s.prompt)) for s in samples_of(pictures[1::-1], ["answering"])]))
        .tolist()
    )


def test_long_samples_are_counted_and_refused(llava, sam, pictures):
    _, text = made(llava, sam)
    samples = samples_of(pictures, ["segmentation", "answering"])
    longest = check_lengths(samples, text, 1000)
    assert longest == max(len(text.prompt(s.prompt) + text.answer(s.answer)) for s in samples)
    assert check_lengths(samples, text, longest) == longest
    with pytest.raises(
        InputError,
        match=rf"[1-4] of 8 samples are longer than --max-length {longest - 1}, the longest"
        rf" {longest} \(i[13], answering\)",
    ):
        check_lengths(samples, text, longest - 1)


# -- the model --------------------------------------------------------------------------------------------


def test_what_is_trained_and_what_gets_a_gradient(llava, sam, pictures):
    model, text = made(llava, sam)
    model.train()
    shaken(model)
    losses = model(**batch_of(model, text, pictures))
    losses["loss"].backward()
    groups = {
        "multi_modal_projector": 0,
        "lora_": 0,
        "trainable_tokens_delta": 0,
        "gamma": 0,
        "mask_decoder": 0,
        "dssl.meta": 0,
    }
    for name, p in model.named_parameters():
        group = next((g for g in groups if g in name), None)
        if not p.requires_grad:
            assert p.grad is None, name
        else:
            assert group and p.grad is not None and p.dtype == torch.float32, name
            groups[group] += float(p.grad.abs().max() > 0)
    assert all(groups.values()), groups
    frozen = {n.split(".")[0] + "." + n.split(".")[1] for n, p in model.sam.named_parameters() if not p.requires_grad}
    assert any(n.startswith("vision_encoder") for n in frozen) and not model.sam.vision_encoder.training
    assert not any("vision_tower" in n for n in trainable(model))
    parts = {n: float(losses[n]) for n in ("text", "bce", "dice", "pbsd")}
    assert float(losses["loss"].detach()) == pytest.approx(
        parts["text"] + 2 * parts["bce"] + 0.5 * parts["dice"] + parts["pbsd"], rel=1e-5
    )


def test_without_dssl_and_without_masks_those_losses_are_absent(llava, sam, pictures):
    model, text = made(llava, sam, replace(SMALL, dssl=False, projector="average-pooling"))
    q = [Question(f"q{n}", f"i{n}", None, None, "other", "What?", (), "That.", False) for n in range(4)]
    assert set(model(**batch_of(model, text, pictures, ("vqa",), q))) == {"loss", "text"}
    mixed = model(**batch_of(model, text, pictures, ("segmentation", "vqa"), q))
    assert set(mixed) == {"loss", "text", "bce", "dice"} and "dssl.meta.0.weight" not in trainable(model)


def test_the_mask_hears_the_token_s_own_state_and_padding_changes_nothing(llava, sam, pictures):
    """The state at `<seg>` depends on all before it and on nothing after it."""
    model, text = made(llava, sam)
    model.eval()
    batch = batch_of(model, text, pictures[:2], ("segmentation",))
    with torch.no_grad():

        def states(ids, mask):
            return model.seg_states(model.hidden_states(ids, mask, model.for_clip(batch["clip_inputs"])), ids)

        ids, mask = batch["input_ids"], batch["attention_mask"]
        at = (ids == model.seg).nonzero()[:, 1]
        hidden = model.hidden_states(ids, mask, model.for_clip(batch["clip_inputs"]))
        found = states(ids, mask)
        assert (found - hidden[torch.arange(2), at]).abs().max() == 0
        longer = torch.cat([ids, torch.full((2, 3), text.pad)], 1)
        wide = torch.cat([mask, torch.zeros(2, 3, dtype=torch.long)], 1)
        assert (states(longer, wide) - found).abs().max() < 1e-5
        after = ids.clone()
        after[torch.arange(2), at + 1] = 300
        assert (states(after, mask) - found).abs().max() < 1e-5
        before = ids.clone()
        before[torch.arange(2), at - 1] = 300
        assert (states(before, mask) - found).abs().max() > 1e-4


def test_the_loss_ignores_the_padding_of_the_canvas(llava, sam, pictures):
    model, text = made(llava, sam, replace(SMALL, dssl=False))
    model.eval()
    batch = batch_of(model, text, pictures[:2])
    h, w = batch["content_sizes"][0].tolist()
    assert (h, w) == (43, 64)
    before = model(**batch)
    batch["masks"][:, h:] = 1
    batch["sam_inputs"][:, :, h:] = 99
    after = model(**batch)
    assert float(before["bce"].detach()) == float(after["bce"].detach())
    assert float(before["dice"]) == float(after["dice"])


@pytest.mark.slow
def test_recomputed_activations_change_nothing(llava, sam, pictures):
    gradients = []
    for again in (False, True):
        model, text = made(llava, sam)
        shaken(model).train()
        if again:
            model.recompute_activations()
        batch = batch_of(model, text, pictures)
        torch.manual_seed(5)
        model(**batch)["loss"].backward()
        gradients.append({n: p.grad for n, p in trainable(model).items()})
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() < 1e-5, name


# -- checkpoints ------------------------------------------------------------------------------------------


def everything(model, text, pictures):
    """Masks, logits and a greedy text of 12 tokens."""
    batch = batch_of(model, text, pictures)
    with torch.no_grad():
        pixels = model.for_clip(batch["clip_inputs"])
        hidden = model.hidden_states(batch["input_ids"], batch["attention_mask"], pixels)
        features = model.visual_features(model.for_sam(batch["sam_inputs"], batch["content_sizes"]))
        masks = model.mask_logits(model.seg_states(hidden, batch["input_ids"]), features)
        prompt = torch.tensor([text.prompt(sample(pictures[0], "segmentation").prompt)])
        said = model.llava.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels[:1],
            max_new_tokens=12,
            do_sample=False,
        )
    return masks, model.base.lm_head(hidden).detach(), said


@pytest.mark.slow
def test_saved_loaded_and_merged_are_the_same(llava, sam, pictures, tmp_path):
    model, text = made(llava, sam)
    shaken(model).eval()
    masks, logits, said = everything(model, text, pictures)
    save_vmad(model, text, tmp_path / "a", llava, sam)
    assert not [p for p in (tmp_path / "a").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    again, text_again = load_vmad(tmp_path / "a")
    assert not trainable(again) and not again.training
    found = everything(again, text_again, pictures)
    assert (found[0] - masks).abs().max() == 0 and (found[1] - logits).abs().max() == 0 and (found[2] == said).all()
    own = {f"{part}.{n}": t for part, module in again.own_parts().items() for n, t in module.state_dict().items()}
    for part, module in model.own_parts().items():
        for n, t in module.state_dict().items():
            assert (own[f"{part}.{n}"] == t).all(), n
    whole = merged(again)
    save_vmad(whole, text_again, tmp_path / "b", llava, sam)
    assert not (tmp_path / "b" / "adapter").exists()
    last, text_last = load_vmad(tmp_path / "b")
    for one in (whole, last):
        found = everything(one, text_last, pictures)
        assert (found[0] - masks).abs().max() < 1e-4 and (found[1] - logits).abs().max() < 1e-4
        assert (found[2] == said).all()


@pytest.mark.slow
def test_a_merged_checkpoint_holds_a_llava_that_loads_without_us(llava, sam, tmp_path):
    from transformers import LlavaForConditionalGeneration

    model, text = made(llava, sam, replace(SMALL, projector="mlp"))
    shaken(model).eval()
    save_vmad(merged(model), text, tmp_path, llava, sam)
    plain, said = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    token = plain.config.image_token_id
    ids, pixels = torch.tensor([[1] + [token] * 16 + [9, 10]]), torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        ours = model.base.lm_head(model.hidden_states(ids, torch.ones_like(ids), pixels))
        assert (plain(input_ids=ids, pixel_values=pixels).logits - ours).abs().max() < 1e-5


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_said(llava, sam, tmp_path):
    model, text = made(llava, sam)
    save_vmad(model, text, tmp_path / "a", llava, sam)
    with pytest.raises(InputError, match="no vmad.safetensors here"):
        load_vmad(tmp_path)
    other = tiny_deep_llava(tmp_path / "other", width=32)
    with pytest.raises(InputError, match="adapter: does not fit its LLaVA"):
        load_vmad(tmp_path / "a", llava=str(other))
    record = json.loads((tmp_path / "a/vmad.json").read_text())
    (tmp_path / "a/vmad.json").write_text(json.dumps(record | {"llava": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match="gone: cannot be loaded"):
        load_vmad(tmp_path / "a")
    assert load_vmad(tmp_path / "a", llava=llava)[0].seg == model.seg
    for other in ({"seg": None}, {"settings": record["settings"] | {"window": 3}}):
        (tmp_path / "a/vmad.json").write_text(json.dumps(record | other))
        with pytest.raises(InputError, match="vmad.json: not of this version of adcli"):
            load_vmad(tmp_path / "a")


# -- bad input --------------------------------------------------------------------------------------------


def test_checkpoints_that_are_refused(llava, sam, tmp_path):
    def changed(name, change):
        shutil.copytree(llava, tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return str(tmp_path / name)

    other = {"model_type": "siglip_vision_model"}
    siglip = changed("siglip", lambda c: c | {"vision_config": c["vision_config"] | other})
    several = changed("several", lambda c: c | {"vision_feature_layer": [-2, -1]})
    clip = str(tiny_clip_vision(tmp_path / "clip"))
    for name, said in (
        (siglip, "its vision tower is a siglip_vision_model; VMAD needs LLaVA with a CLIP tower"),
        (several, "takes several layers"),
        (clip, "a clip_vision_model model; VMAD is built on LLaVA"),
        (str(tmp_path / "none"), "cannot be loaded"),
    ):
        with pytest.raises(InputError, match=said):
            new_model(name, sam, SMALL, LossWeights())
    strange = changed("strange", lambda c: c | {"image_token_index": 32000})
    with pytest.raises(InputError, match="strange: its tokenizer has no image token .number 32000"):
        new_model(strange, sam, SMALL, LossWeights())
    for option, names in (("llava", ("./typo", sam)), ("sam", (llava, "/no/such/folder")), ("sam", (llava, "sam"))):
        with pytest.raises(InputError, match=f"--{option} .*: cannot be loaded, there is no such folder"):
            new_model(*names, SMALL, LossWeights())
    with pytest.raises(InputError, match="--sam .*: a llava model; expected SAM"):
        new_model(llava, llava, SMALL, LossWeights())
    with pytest.raises(InputError, match="--levels 9: expected 1 to 4, the layers below.*--llava"):
        new_model(llava, sam, replace(SMALL, levels=9), LossWeights())


@pytest.mark.slow
def test_weights_that_are_not_there_are_not_made_up(llava, sam, tmp_path):
    """transformers would fill them with random numbers and go on."""
    from safetensors.torch import load_file, save_file

    def without(source, part, name):
        shutil.copytree(source, tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        kept = {n: t for n, t in tensors.items() if part not in n}
        assert len(kept) < len(tensors)
        save_file(kept, tmp_path / name / "model.safetensors", {"format": "pt"})
        return str(tmp_path / name)

    with pytest.raises(InputError, match="--llava .*bare: [0-9]+ of its weights are not in its files, .*vision_tower"):
        new_model(without(llava, "vision_tower", "bare"), sam, SMALL, LossWeights())
    with pytest.raises(InputError, match="--sam .*blunt: [0-9]+ of its weights are not in its files, .*mask_decoder"):
        new_model(llava, without(sam, "mask_decoder", "blunt"), SMALL, LossWeights())
    for option, source in (("llava", llava), ("sam", sam)):
        shutil.copytree(source, tmp_path / f"{option}-blind")
        (tmp_path / f"{option}-blind" / "preprocessor_config.json").unlink()
        names = {"llava": llava, "sam": sam} | {option: str(tmp_path / f"{option}-blind")}
        with pytest.raises(InputError, match=f"--{option} .*blind: its image processor cannot be loaded"):
            new_model(names["llava"], names["sam"], SMALL, LossWeights())


def test_a_vocabulary_that_has_seg_already_is_refused(llava, sam, tmp_path):
    from transformers import AutoTokenizer

    shutil.copytree(llava, tmp_path / "again")
    tokenizer = AutoTokenizer.from_pretrained(llava)
    tokenizer.add_tokens(["<seg>"])
    tokenizer.save_pretrained(tmp_path / "again")
    with pytest.raises(InputError, match="again: its vocabulary already has <seg>; start from the LLaVA"):
        new_model(str(tmp_path / "again"), sam, SMALL, LossWeights())


@pytest.mark.slow
def test_images_of_one_pixel_and_of_8000_by_8000(llava, sam, tmp_path, save_image, pictures):
    from PIL import Image as Picture

    Picture.new("RGB", (8000, 8000), "grey").save(tmp_path / "large.png")
    save_image(tmp_path / "one.png", np.full((1, 1, 3), 9, np.uint8))
    save_image(tmp_path / "one_mask.png", np.full((1, 1), 255, np.uint8))
    odd = [
        replace(pictures[0], image_id="large", file=tmp_path / "large.png"),
        replace(pictures[1], image_id="one", file=tmp_path / "one.png", masks=(tmp_path / "one_mask.png",)),
    ]
    model, text = made(llava, sam, replace(SMALL, dssl=False))
    batch = batch_of(model, text, odd)
    losses = model(**batch)
    assert batch["content_sizes"].tolist() == [[64, 64]] * 2 and batch["masks"][1].all() and not batch["masks"][0].any()
    assert all(torch.isfinite(v) for v in losses.values())
    model, text = made(llava, sam)
    losses = model(**batch_of(model, text, [odd[1], pictures[0]]))
    assert all(torch.isfinite(v) for v in losses.values()), "a box of one pixel"
