"""Which prompt an image gets, and the light clean-up of generated texts (VID-AD, section 4.2)."""

import pytest

from stages.base.errors import InputError
from stages.captions.caption import clean_text, prompt_for
from stages.datasets.manifest import Image


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("three  oranges,\n\n two\tkiwis ", "three oranges, two kiwis"),
        ("<|im_start|>red<|im_end|>", "red"),
        ("<s>red</s>", "red"),
        ("```text\nred\n```", "red"),
        ("  Form: red, Form: green", "red, Form: green"),
        ("a < b | c > d", "a < b | c > d"),
        (" \n ", ""),
    ],
)
def test_special_tokens_and_fences_go_and_white_space_is_single(text, clean):
    assert clean_text(text) == clean


def test_a_folder_has_a_prompt_for_each_category(tmp_path, monkeypatch):
    def image(category):
        return Image("i", "i.png", "vidad", category, None, "train", 0, None, (), None, None, None)

    for name in ("Fruits_prompt.txt", "tools.txt", "Tools_prompt.txt", "notes.txt"):
        (tmp_path / name).write_text(f"of {name}")
    assert prompt_for(image("fruits"), str(tmp_path), "qwen2-vl").text == "of Fruits_prompt.txt"
    with pytest.raises(InputError, match=r"has Tools_prompt.txt and tools.txt; one prompt for tools is expected"):
        prompt_for(image("tools"), str(tmp_path), "qwen2-vl")
    with pytest.raises(InputError, match=r"has no ropes.txt and no ropes_prompt.txt"):
        prompt_for(image("ropes"), str(tmp_path), "qwen2-vl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "general").mkdir()
    assert "of " not in prompt_for(image("fruits"), "general", "qwen2-vl").text[:3], "a packaged prompt of that name"
