"""`--fusion released`: what the authors' code computes, against its formulas written again."""

import math

import pytest

from stages.artifacts.tables import CAPTIONS
from stages.base.errors import InputError
from stages.base.prompts import load_prompt
from stages.sage.config import SageSettings
from stages.sage.data import read_lines
from tests.sage_world import QUIET, asked, losses, sfe_config, tensors, write

SETTINGS = SageSettings(fusion="released", shots=0, heads=4, lora_rank=0)


def test_lines_are_cut_at_breaks_with_blank_ones_and_filled_up_to_ten(tmp_path):
    texts = {"five": "1. a\n\n2. b\n\n3. c", "many": "\n".join(str(n) for n in range(12))}
    rows = [{"image_id": i, "prompt_id": "p", "sample": 0, "text": t} for i, t in texts.items()]
    found = read_lines(write(tmp_path / "c.parquet", rows, CAPTIONS), 0).sentences
    assert found["five"][:5] == ("1. a", "", "2. b", "", "3. c") and found["many"] == tuple("0123456789")
    stock = load_prompt("sage/stock-lines").text.splitlines()
    assert len(found["five"]) == len(stock) == 10 and len(set(found["five"][5:])) == 5
    assert set(found["five"][5:]) <= set(stock)


def test_the_attention_is_its_formula():
    """concat over heads of softmax(q k^T / sqrt(d)) v, times Wo^T, with all biases; Xavier-uniform, biases 0."""
    import torch

    from stages.sage.fusion import ReleasedFusion

    fusion, generator = ReleasedFusion(12, 3, False), torch.Generator().manual_seed(0)
    fusion.start(0.02, generator)
    mha = fusion.attention
    assert float(mha.in_proj_weight.abs().max()) == pytest.approx(math.sqrt(6 / (12 + 36)), rel=0.02)
    assert float(mha.out_proj.weight.abs().max()) == pytest.approx(math.sqrt(6 / 24), rel=0.05)
    assert not mha.in_proj_bias.any() and not mha.out_proj.bias.any()
    with torch.no_grad():
        mha.in_proj_bias.normal_(generator=generator)
        mha.out_proj.bias.normal_(generator=generator)
        facts, patches = torch.randn(4, 12, generator=generator), torch.randn(9, 12, generator=generator)
        q, k, v = (
            x @ w.T + b
            for x, w, b in zip(
                (facts, patches, patches), mha.in_proj_weight.chunk(3), mha.in_proj_bias.chunk(3), strict=True
            )
        )
        heads = [torch.softmax(q[:, h] @ k[:, h].T / 2, -1) @ v[:, h] for h in (slice(0, 4), slice(4, 8), slice(8, 12))]
        expected = torch.cat(heads, 1) @ mha.out_proj.weight.T + mha.out_proj.bias
        assert torch.allclose(fusion(facts, patches), expected, atol=1e-5)


def test_the_output_is_drawn_anew_only_when_asked_for():
    import torch

    from stages.sage.fusion import ReleasedFusion

    for redraw in (False, True):
        fusion = ReleasedFusion(8, 2, redraw)
        fusion.start(1.0, torch.Generator().manual_seed(0))
        before = fusion.attention.out_proj.weight.clone()
        with torch.no_grad():
            fusion.attention.out_proj.bias.fill_(1)
        fusion.begin()
        assert torch.equal(fusion.attention.out_proj.weight, before) != redraw
        assert float(fusion.attention.out_proj.bias.sum()) == (0 if redraw else 8)


def test_positions_begin_again_behind_the_vectors_of_each_image():
    """Two images with 2 and 3 vectors, two answers each; with --sentences 20 descriptions have unequal numbers."""
    import torch

    from stages.sage.model import starting_again

    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]] * 2)
    assert starting_again(mask, [2, 3])[:, :4].tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]] * 2
    assert starting_again(mask.flip(1), [2, 3])[:, 1:].tolist() == [[0, 1, 0, 1], [1, 2, 0, 1]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True])
def test_what_the_language_model_reads(tiles, internvl, left):
    """Ten vectors, then the whole chat; positions 0 to 9, and 0 again; lines pooled over 256 places, padding too."""
    import torch
    from PIL import Image as Pil

    from stages.sage.checkpoint import load_processor, prepare
    from stages.sage.data import PromptEncoder
    from stages.sage.model import core_of, embedded

    model = prepare(str(internvl), "", SETTINGS, 0, "float32").eval()
    encoder = PromptEncoder(load_processor(str(internvl))[0], SETTINGS)
    rows, questions = asked(tiles, SETTINGS)
    samples = [questions.sample(rows[0]), questions.sample(rows[1], "Why is it so, and what may follow from it?")]
    core, tokenizer = core_of(model), encoder.processor.tokenizer
    word = core.get_input_embeddings().weight
    with torch.no_grad():
        batch = encoder.batch(samples, left=left)
        mask = batch["attention_mask"].bool()
        batch.pop("completion_mask")
        found, logits = embedded(core, batch, SETTINGS), model(**batch).logits
        for n, s in enumerate(samples):
            assert s.facts[:2] == ("Tiles may have holes. They may be cracked.", "The tile is grey.")
            chat = "".join(encoder.turns(s))
            inputs = encoder.processor(images=[[Pil.open(s.shown[0].file)]], text=[chat], return_tensors="pt")
            patches = torch.cat(list(core.get_image_features(inputs["pixel_values"]).pooler_output))
            pooled = []
            for line in s.facts:
                ids = tokenizer(line, add_special_tokens=False)["input_ids"]
                pooled.append(word[ids + [tokenizer.pad_token_id] * (256 - len(ids))].mean(0))
            vectors = core.fusion(torch.stack(pooled), patches)
            own, left_over = [], list(patches)
            for token in inputs["input_ids"][0].tolist():
                own.append(left_over.pop(0) if token == encoder.image_token_id else word[token])
            expected = torch.cat([vectors, torch.stack(own)])[None]
            positions = torch.tensor([[*range(10), *range(len(own))]])
            assert torch.allclose(found["inputs_embeds"][n][mask[n]], expected[0], atol=1e-5)
            assert found["position_ids"][n][mask[n]].tolist() == positions[0].tolist()
            whole = torch.ones(1, expected.shape[1], dtype=torch.long)
            states = core.language_model(inputs_embeds=expected, position_ids=positions, attention_mask=whole)
            assert torch.allclose(logits[n][mask[n]], model.lm_head(states.last_hidden_state)[0], atol=1e-4)
            plain = core.language_model(inputs_embeds=expected, attention_mask=whole).last_hidden_state
            assert not torch.allclose(plain, states.last_hidden_state, atol=1e-2), "positions count"


@pytest.mark.slow
def test_it_trains_and_answers_with_and_without_the_fusion(tiles, internvl, tmp_path):
    from stages.artifacts.reader import read_provenance, read_table
    from stages.artifacts.tables import ANSWERS
    from stages.sage.config import ScoreSageConfig
    from stages.sage.score import run as score
    from stages.sage.sfe import run as sfe

    sfe(sfe_config(tiles, internvl, tmp_path / "sfe", fusion="released", shots=0, epochs=2.0), QUIET)
    curve = losses(tmp_path / "sfe")
    assert float(curve[-1]["loss"]) < float(curve[0]["loss"])
    assert {"fusion/attention.in_proj_weight", "fusion/attention.out_proj.bias"} <= tensors(tmp_path / "sfe").keys()
    given = {"manifest": tiles.manifest, "questions": tiles.questions, "root": tiles.manifest.parent, "shots": 0}
    given |= {"checkpoint": tmp_path / "sfe", "device": "cpu", "precision": "fp32", "max_tokens": 6}
    found = []
    for name, more in (("fused", {"facts": tiles.facts}), ("unfused", {"unfused": True})):
        for choose in ("likelihood", "generate"):
            out = tmp_path / f"{name}-{choose}"
            score(ScoreSageConfig(**given, **more, out=out, choose=choose), QUIET)
            found.append(read_table(out, ANSWERS).to_pylist())
    assert [r["likelihoods"] for r in found[0]] != [r["likelihoods"] for r in found[2]]
    assert all(r["response"] is not None for r in found[1])
    record = read_provenance(tmp_path / "unfused-likelihood")[0]
    assert record["parameters"]["unfused"] and record["notes"]["model"]["fusion"] == "none"


def test_what_is_refused():
    for more, said in (
        ({"shots": 1}, "--fusion released compares with no reference image: give --shots 0"),
        (
            {"fusion": "attention", "redraw_output": True},
            "--redraw-output: a slip of --fusion released, not of attention",
        ),
    ):
        with pytest.raises(InputError, match=said):
            SageSettings(**{"fusion": "released", "shots": 0} | more).check()
