"""A tiny InternVL with random weights, for runs without any download.

python -m pipelines.demo_models.random_vlm DIR
"""

import sys
from pathlib import Path

from pipelines.demo_models.parts import chat_template, projected_tokenizer, text_config


def tiny_internvl(folder: Path, width: int = 64, seed: int = 0, vision: dict | None = None, tiles: int = 2) -> Path:
    """InternVL with two layers: square tiles of 56 px and 16 tokens. vision: more of the tower's settings; tiles: up to
    so many, and a thumbnail, per image."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    torch.manual_seed(seed)
    tokenizer = projected_tokenizer(
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [56, 56],
        "patch_size": [7, 7],
    } | (vision or {})
    size, patch = vision["image_size"][0], vision["patch_size"][0]
    square, tokens = {"height": size, "width": size}, (size // patch // 2) ** 2
    config = InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **text_config(tokenizer, width)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=tokens,
        downsample_ratio=0.5,
    )
    images = GotOcr2ImageProcessor(size=square, crop_to_patches=True, min_patches=1, max_patches=tiles)
    InternVLProcessor(
        images,
        tokenizer,
        InternVLVideoProcessor(size=square),
        image_seq_length=tokens,
        chat_template=chat_template("<IMG_CONTEXT>\n"),
    ).save_pretrained(folder)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    tiny_internvl(Path(sys.argv[1]))
