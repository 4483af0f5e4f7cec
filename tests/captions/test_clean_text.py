"""The light clean-up of generated texts (VID-AD, section 4.2)."""

import pytest

from stages.captions.caption import clean_text


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
