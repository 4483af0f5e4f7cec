"""Random-weight checkpoints that benchmarks and tests share. None is any good."""

from pathlib import Path

from pipelines.demo_models.parts import CHAT, tiny_tokenizer


def tiny_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL with two layers, about 1 M parameters, with processor and chat template."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    at = tokenizer.convert_tokens_to_ids
    text = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
    }
    vision = {"depth": 2, "embed_dim": 128, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=at("<|image_pad|>"),
        video_token_id=at("<|video_pad|>"),
        vision_start_token_id=at("<|vision_start|>"),
        vision_end_token_id=at("<|vision_end|>"),
    )
    images = Qwen2VLImageProcessor(patch_size=14, merge_size=2, size={"shortest_edge": 3136, "longest_edge": 12544})
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(patch_size=14), chat_template=CHAT)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_bert(folder: Path) -> Path:
    """BERT with two layers of width 32 and a vocabulary of whole words and letters."""
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "orange",
        "oranges",
        "kiwi",
        "kiwis",
        "apple",
        "apples",
        "red",
        "blue",
        "left",
        "right",
        "long",
        "short",
    ]
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words,
        *letters,
        *(f"##{c}" for c in letters),
        ".",
        ",",
        ":",
        ";",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder
