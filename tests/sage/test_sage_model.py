"""SAGE's model: what the language model reads, checked piece by piece; checkpoints; likelihoods and replies."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stages.base.errors import InputError
from stages.datasets.manifest import Image
from stages.sage.config import SageSettings
from stages.sage.data import PLACE, PromptEncoder, SageSample, refuse_too_long, sentences
from tests.tiny import tiny_internvl, tiny_llava

SETTINGS = SageSettings(heads=4, patches=5, lora_rank=4, lora_alpha=8)
SIZES = ((60, 60), (60, 130), (200, 60), (90, 100))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {
        "internvl": tiny_internvl(tmp_path_factory.mktemp("internvl")),
        "llava": tiny_llava(tmp_path_factory.mktemp("llava")),
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from PIL import Image as Pil

    folder, found = tmp_path_factory.mktemp("images"), []
    for n, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(n).integers(0, 255, (height, width, 3), np.uint8)
        Pil.fromarray(pixels).save(folder / f"{n}.png")
        found.append(Image(f"i{n}", folder / f"{n}.png", "d", "c", None, "test", 0, None, (), width, height, None))
    return found


def sample(images, n, shots=1):
    facts = ("It may have a crack.", "So.", "The image is grey and small.")[: n + 1]
    reference = images[(n + 1) % len(images)] if shots else None
    return SageSample(f"q{n}", (images[n],), reference, facts, f"{PLACE}\nAbove.\nIs there a defect {n}?")


def opened(base, settings=SETTINGS):
    """(model, encoder) with LoRA off zero, so that its adapter counts."""
    import torch

    from stages.sage.checkpoint import load_processor, prepare

    model = prepare(str(base), "", settings, 0, "float32").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name or "multi_modal_projector.modules_to_save" in name:
                p.add_(torch.randn_like(p) * 0.1)
    return model, PromptEncoder(load_processor(str(base), "", settings.tiles)[0], settings)


def test_sentences():
    assert sentences("A dent. Or a 2.5 mm hole!  1. Cracks?") == ["A dent.", "Or a 2.5 mm hole!", "Cracks?"]
    assert sentences("") == [] and sentences("No full stop") == ["No full stop"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["internvl", "llava"])
def test_the_length_of_a_prompt_is_known_without_its_images(bases, images, family):
    from stages.sage.checkpoint import load_processor

    for tiles in (0, 1) if family == "internvl" else (0,):
        settings = replace(SETTINGS, tiles=tiles)
        encoder = PromptEncoder(load_processor(str(bases[family]), "", tiles)[0], settings)
        for n in range(4):
            for s in (sample(images, n), replace(sample(images, n), shown=tuple(images[:2]), reference=None)):
                ids, parts = encoder.prompt(s)
                assert len(ids) == encoder.length(s)
                assert ids.count(encoder.image_token_id) == parts["image_tokens"] + len(s.facts)
    if family == "llava":
        with pytest.raises(InputError, match="--tiles 2: the images of a llava"):
            load_processor(str(bases[family]), "", 2)


def by_hand(model, encoder, s, answer, settings):
    """inputs_embeds (L, C) of one sample, vector by vector."""
    import torch
    from PIL import Image as Pil

    from stages.sage.model import core_of

    core, processor = core_of(model), encoder.processor
    word = core.get_input_embeddings().weight

    def patches(image):
        pixels = processor(images=[[Pil.open(image.file)]], text=[processor.image_token], return_tensors="pt")
        return torch.cat(list(core.get_image_features(pixels["pixel_values"]).pooler_output))

    test = patches(s.shown[0])
    chosen = test
    if s.reference:
        reference = patches(s.reference)
        nearest = [max(float(torch.cosine_similarity(t, r, dim=0)) for r in reference) for t in test]
        chosen = test[sorted(range(len(test)), key=nearest.__getitem__)[: settings.patches]]
    vectors = []
    for fact in s.facts:
        tokens = processor.tokenizer(fact)["input_ids"]
        pooled = torch.stack([word[t] for t in tokens]).mean(0)
        vectors.append(core.fusion(pooled[None], chosen)[0])
    before, after = encoder.turns(s)
    first = processor(images=[[Pil.open(s.shown[0].file)]], text=[before], return_tensors="pt")["input_ids"][0].tolist()
    rows, left = [], list(test)
    for token in first:
        rows.append(left.pop(0) if token == encoder.image_token_id else word[token])
    assert not left
    rows += vectors + [word[t] for t in processor.tokenizer(after)["input_ids"] + encoder.answer(s, answer)]
    return torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["internvl", "llava"])
@pytest.mark.parametrize("shots", [1, 0])
def test_what_the_language_model_reads(bases, images, family, shots):
    """Eq. 9: patches of the test image, one vector per fact, the question; two answers share the images."""
    import torch

    from stages.sage.model import core_of, embedded

    settings = replace(SETTINGS, shots=shots)
    model, encoder = opened(bases[family], settings)
    samples = [sample(images, n, shots) for n in range(3)]
    answers = [["yes", "no, it is whole", "a hole"], ["no", "yes", "perhaps a crack"]]
    with torch.no_grad():
        inputs = encoder.batch(samples, answers)
        found = embedded(core_of(model), inputs, settings)["inputs_embeds"]
        for n, (s, answer) in enumerate((s, a) for round_ in answers for s, a in zip(samples, round_, strict=True)):
            expected = by_hand(model, encoder, s, answer, settings)
            length = int(inputs["attention_mask"][n].sum())
            assert torch.allclose(found[n, :length], expected, atol=1e-5)
            learned = inputs["input_ids"][n][inputs["completion_mask"][n] == 1].tolist()
            assert learned == encoder.answer(s, answer) and learned[-1] == encoder.processor.tokenizer.eos_token_id
        left = embedded(core_of(model), encoder.batch(samples, left=True), settings)
        mask = left["attention_mask"].bool()
        for n, s in enumerate(samples):
            expected = by_hand(model, encoder, s, "", settings)[: encoder.length(s)]
            assert torch.allclose(left["inputs_embeds"][n][mask[n]], expected, atol=1e-5)


def test_without_fusion_it_is_the_stock_model(bases, images):
    import torch
    from PIL import Image as Pil
    from transformers import AutoModelForImageTextToText

    settings = replace(SETTINGS, fusion="none")
    from stages.sage.checkpoint import prepare

    model, encoder = prepare(str(bases["internvl"]), "", settings, 0, "float32").eval(), opened(bases["internvl"])[1]
    s = SageSample("q", tuple(images[:2]), None, (), "Is there a defect?")
    chat = [
        {
            "role": "user",
            "content": [
                *({"type": "image", "image": Pil.open(i.file)} for i in images[:2]),
                {"type": "text", "text": s.text},
            ],
        }
    ]
    inputs = encoder.processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ours = encoder.batch([s])
    ours.pop("completion_mask")
    assert ours["input_ids"].tolist() == inputs["input_ids"].tolist()
    with torch.no_grad():
        stock = AutoModelForImageTextToText.from_pretrained(bases["internvl"])(**inputs).logits
        assert torch.allclose(model(**ours).logits, stock, atol=1e-5), "LoRA starts at zero"


def saved(model, encoder, folder, base, settings=SETTINGS):
    from stages.sage.checkpoint import base_fingerprint, save

    folder.mkdir()
    record = {"stage": "sfe", "base": str(base), "revision": "", "weights": base_fingerprint(str(base), "")}
    save(model, model.state_dict(), encoder.processor, folder, record, settings)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rank", [4, 0])
def test_checkpoints_round_trip(bases, images, tmp_path, rank):
    import torch

    from stages.sage.checkpoint import load_sage

    settings = replace(SETTINGS, lora_rank=rank)
    model, encoder = opened(bases["internvl"], settings)
    folder = saved(model, encoder, tmp_path / "c", bases["internvl"], settings)
    assert (folder / "fusion.safetensors").exists() and (folder / "adapter_config.json").exists() == bool(rank)
    loaded = load_sage(folder)
    assert loaded.settings == settings and not any(p.requires_grad for p in loaded.model.parameters())
    inputs = encoder.batch([sample(images, 1)])
    inputs.pop("completion_mask")
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, model(**inputs).logits)
    names = {n for n, p in load_sage(folder, trainable=True).model.named_parameters() if p.requires_grad}
    assert any("multi_modal_projector" in n for n in names) and any("language_model" in n for n in names)
    assert not any("fusion" in n or "vision_tower" in n for n in names), "frozen in E-DPO"


@pytest.mark.slow
def test_a_plain_lora_is_merged(bases, images, tmp_path):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from stages.sage.checkpoint import merge

    settings = replace(SETTINGS, fusion="none")
    model, encoder = opened(bases["internvl"], settings)
    folder = saved(model, encoder, tmp_path / "c", bases["internvl"], settings)
    merge(folder, tmp_path / "plain")
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain")
    assert type(stock).__name__ == "InternVLForConditionalGeneration"
    assert AutoProcessor.from_pretrained(tmp_path / "plain").image_token == encoder.image_token
    inputs = encoder.batch([SageSample("q", (images[0],), None, (), "Is there a defect?")])
    plain = {n: inputs[n] for n in ("input_ids", "attention_mask", "pixel_values")}
    inputs.pop("completion_mask")
    with torch.no_grad():
        assert torch.allclose(stock(**plain).logits, model(**inputs).logits, atol=1e-4)
    with pytest.raises(InputError, match="holds something already"):
        merge(folder, bases["internvl"])
    other = saved(*opened(bases["internvl"]), tmp_path / "f", bases["internvl"])
    with pytest.raises(InputError, match="fusion layer"):
        merge(other, tmp_path / "no")


@pytest.mark.slow
def test_checkpoints_of_another_kind(bases, qwen, tmp_path):
    from stages.sage.checkpoint import base_fingerprint, fingerprint, load_sage
    from stages.sage.config import read_record

    with pytest.raises(InputError, match="no sage.json here"):
        read_record(bases["internvl"])
    with pytest.raises(InputError, match="a qwen2_vl; SAGE is built on InternVL and LLaVA"):
        base_fingerprint(str(qwen), "")
    with pytest.raises(InputError, match="--base .*nowhere"):
        base_fingerprint(str(tmp_path / "nowhere"), "")
    (tmp_path / "own").mkdir()
    own = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}}
    (tmp_path / "own/config.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match="own: OpenGVLab's own format, .* -hf in its name .* docs/sage.md"):
        base_fingerprint(str(tmp_path / "own"), "")
    folder = saved(*opened(bases["internvl"]), tmp_path / "c", bases["internvl"])
    other = tiny_internvl(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match="other weights than"):
        fingerprint(folder, str(other))
    wide = tiny_internvl(tmp_path / "wide", width=32)
    with pytest.raises(InputError, match="does not fit the base model"):
        load_sage(folder, str(wide))
    with pytest.raises(InputError, match="--heads 7: does not divide the model's width of 64"):
        opened(bases["internvl"], replace(SETTINGS, heads=7))


@pytest.mark.slow
def test_likelihoods_and_replies(bases, images, tmp_path):
    """Padding, shared images and batches change nothing."""
    import torch

    from stages.sage.checkpoint import load_sage
    from stages.sage.score import Answering

    model, encoder = opened(bases["internvl"])
    answering = Answering(load_sage(saved(model, encoder, tmp_path / "c", bases["internvl"])), "cpu", 6)
    s, choices = sample(images, 1), ("yes", "no, the image is whole", "a crack")
    for choice, found, tokens in zip(choices, *answering.likelihoods(s, choices), strict=True):
        inputs = encoder.batch([s], [[choice]])
        n = int(inputs.pop("completion_mask").sum())
        with torch.no_grad():
            logs = model(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        mean = sum(float(logs[t - 1, ids[t]]) for t in range(len(ids) - n, len(ids))) / n
        assert found == pytest.approx(np.exp(mean), rel=1e-4) and tokens == n
    samples = [sample(images, n) for n in range(3)]
    assert answering.replies(samples) == [answering.replies([s])[0] for s in samples]
    assert answering.room(s, None) == 1024 - encoder.length(s) - 6
    assert answering.room(s, choices) == 1024 - encoder.length(s) - len(encoder.answer(s, choices[1]))


def test_samples_that_are_too_long_are_counted_and_refused(bases, images):
    from stages.sage.checkpoint import load_processor

    encoder = PromptEncoder(load_processor(str(bases["internvl"]))[0], SETTINGS)
    samples, answers = [sample(images, n) for n in range(4)], [("yes", "no " * 30)] * 4
    lengths = [encoder.length(s) + len(encoder.answer(s, "no " * 30)) for s in samples]
    refuse_too_long(encoder, samples, answers, max(lengths))
    longest = lengths.index(max(lengths))
    with pytest.raises(
        InputError,
        match=rf"^1 of 4 samples are longer than {max(lengths) - 1} tokens, the longest is"
        rf" question q{longest} with {max(lengths)}, 50 of them of images",
    ):
        refuse_too_long(encoder, samples, answers, max(lengths) - 1)
    bad = replace(samples[0], text=f"{PLACE} What is <IMG_CONTEXT>?")
    with pytest.raises(InputError, match="question q0: its text or its facts hold the model's image token"):
        encoder.length(bad)
