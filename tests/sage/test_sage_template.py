"""A chat template of LLaVA-1.5's form: it writes neither BOS nor the end of an answer."""

from dataclasses import replace

import numpy as np
import pytest

from stages.datasets.manifest import Image
from stages.sage.config import SageSettings
from stages.sage.data import PLACE, PromptEncoder, SageSample
from tests.tiny import tiny_llava

# As llava-hf/llava-1.5-7b-hf has it: the role and a colon, images first, a blank behind every text, no end.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.mark.slow
def test_prompts_begin_with_bos_and_answers_end(tmp_path, save_image):
    from tokenizers.processors import TemplateProcessing

    from stages.sage.checkpoint import load_processor

    processor, _ = load_processor(str(tiny_llava(tmp_path / "llava")))
    tokenizer = processor.tokenizer
    processor.chat_template, tokenizer.bos_token = TEMPLATE, "<|im_start|>"
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    assert tokenizer("yes")["input_ids"][0] == bos
    file = save_image(tmp_path / "i.png", np.full((60, 60, 3), 99, np.uint8))
    image = Image("i", file, "d", "c", None, "test", 0, None, (), 60, 60, None)
    fused = SageSample("q", (image,), None, ("It may crack.", "So."), f"{PLACE}\nAbove.\nIs it cut?")
    for settings, s in (
        (SageSettings(shots=0), fused),
        (SageSettings(fusion="none"), replace(fused, facts=(), text="Is it cut?")),
        (SageSettings(fusion="released", shots=0), replace(fused, text="Is it cut?")),
    ):
        encoder = PromptEncoder(processor, settings)
        batch = encoder.batch([s, s], [["Yes, it is.", "No"]])
        ids, mask = batch["input_ids"][0].tolist(), batch["completion_mask"][0].tolist()
        vectors = len(s.facts) if settings.fusion == "released" else 0
        assert ids[vectors] == bos and ids.count(bos) == 1, "vectors of the released code stand before BOS"
        learned = [t for t, m in zip(ids, mask, strict=True) if m]
        assert learned[-1] == eos and learned.count(eos) == 1
        assert tokenizer.decode(learned[:-1]) == " Yes, it is."
        assert encoder.length(s) == mask.index(1) and tokenizer.decode(ids[: mask.index(1)]).endswith("ASSISTANT:")
