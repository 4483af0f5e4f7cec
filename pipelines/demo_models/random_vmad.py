"""A tiny LLaVA and a tiny SAM with random weights, for runs without any download.

    python -m pipelines.demo_models.random_vmad DIR

makes DIR/llava and DIR/sam.
"""

import sys
from pathlib import Path

from pipelines.demo_models.parts import tiny_tokenizer

CANVAS, PATCH, WIDTH = 256, 8, 64  # SAM's input and patches, px; width of its encoder


def tiny_deep_llava(folder: Path, image_size: int = 56, layers: int = 6, width: int = 64) -> Path:
    """LLaVA whose CLIP tower has the layers that VMAD reads (width 32, patches of 14 px), and a LLaMA of two."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(("<image>",))
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": 14,
    }
    text = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight *= 20  # frozen as it is made, it could prefer no token to another
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=image_size).save_pretrained(folder)
    return folder


def tiny_sam(folder: Path, image_size: int = 64, patch: int = 8, width: int = 32, vision: dict | None = None) -> Path:
    """SAM with two layers, and its image processor. width: of its encoder; vision: more of the encoder's settings."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel

    torch.manual_seed(0)
    vision = {
        "hidden_size": width,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": patch,
        "num_pos_feats": 16,
        "window_size": 4,
        "mlp_dim": 2 * width,
        "global_attn_indexes": [1],
        "initializer_range": 0.02,  # with SAM's own 1e-10 nothing is seen
    } | (vision or {})
    prompt = {
        "hidden_size": 32,
        "image_size": image_size,
        "patch_size": patch,
        "image_embedding_size": image_size // patch,
    }
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    ).save_pretrained(folder)
    side = {"height": image_size, "width": image_size}
    SamImageProcessor(
        size={"longest_edge": image_size},
        pad_size=side,
        mask_size={"longest_edge": image_size // 4},
        mask_pad_size={"height": image_size // 4, "width": image_size // 4},
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    tiny_deep_llava(Path(sys.argv[1]) / "llava")
    tiny_sam(Path(sys.argv[1]) / "sam", CANVAS, PATCH, WIDTH)
