"""Random-weight checkpoints of the real architectures, small enough to make on the fly. None is any good."""

from pathlib import Path

from benchmarks.tiny import tiny_bert as tiny_bert
from benchmarks.tiny import tiny_qwen2_vl as tiny_qwen2_vl
from pipelines.demo_models.parts import chat_template, projected_tokenizer, text_config
from pipelines.demo_models.random_vlm import tiny_internvl as tiny_internvl
from pipelines.demo_models.random_vmad import tiny_deep_llava as tiny_deep_llava
from pipelines.demo_models.random_vmad import tiny_sam as tiny_sam


def tiny_clip_vision(folder: Path, image_size: int = 56, layers: int = 4) -> Path:
    """CLIP's vision tower of width 32 with patches of 14 px, and its image processor."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=14,
    )
    CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=image_size).save_pretrained(folder)
    return folder


def tiny_llava(folder: Path) -> Path:
    """LLaVA with two layers: 56 px images of 16 tokens."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    torch.manual_seed(0)
    tokenizer = projected_tokenizer({"image_token": "<image>"})
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "projection_dim": 32,
    }
    config = LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **text_config(tokenizer, 64)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_select_strategy="default",
    )
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("<image>\n"),
    ).save_pretrained(folder)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tiny_mllama(folder: Path) -> Path:
    """Llama 3.2 Vision with two layers, the second one with cross-attention: one tile of 56 px."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessor, MllamaProcessor

    torch.manual_seed(0)
    names = ("image_token", "begin_of_text", "start_header_id", "end_header_id", "eot_id")
    tokenizer = projected_tokenizer({n: f"<|{n.removesuffix('_token')}|>" for n in names})
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
        "intermediate_layers_indices": [0],
        "vision_output_dim": 64,
    }
    text = text_config(tokenizer, 64) | {"cross_attention_layers": [1], "bos_token_id": tokenizer.bos_token_id}
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=image)
    MllamaForConditionalGeneration(config).save_pretrained(folder)
    images = MllamaImageProcessor(size={"height": 56, "width": 56}, max_image_tiles=1)
    MllamaProcessor(images, tokenizer, chat_template=chat_template("<|image|>")).save_pretrained(folder)
    return folder
