"""Random-weight checkpoints of the real architectures, small enough to make on the fly. None is any good."""

from pathlib import Path

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
CHAT = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|>"
        "<|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def _tokenizer(more: tuple[str, ...] = ()):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*SPECIAL, *more],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["three oranges, two kiwis. describe the objects in this image"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def tiny_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL with two layers, about 1 M parameters, with processor and chat template."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import (Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor,
                              Qwen2VLProcessor, Qwen2VLVideoProcessor)

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    at = tokenizer.convert_tokens_to_ids
    text = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 4096,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}}
    vision = {"depth": 2, "embed_dim": 128, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2,
              "patch_size": 14}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=at("<|image_pad|>"),
                           video_token_id=at("<|video_pad|>"), vision_start_token_id=at("<|vision_start|>"),
                           vision_end_token_id=at("<|vision_end|>"))
    images = Qwen2VLImageProcessor(patch_size=14, merge_size=2,
                                   size={"shortest_edge": 3136, "longest_edge": 12544})
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(patch_size=14), chat_template=CHAT)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_bert(folder: Path) -> Path:
    """BERT with two layers of width 32 and a vocabulary of whole words and letters."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = "one two three four five orange oranges kiwi kiwis apple apples red blue left right long short".split()
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters,
                  *(f"##{c}" for c in letters), ".", ",", ":", ";"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    BertModel(config).save_pretrained(folder)
    return folder


def tiny_clip_vision(folder: Path, image_size: int = 56, layers: int = 4) -> Path:
    """CLIP's vision tower of width 32 with patches of 14 px, and its image processor."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
                              image_size=image_size, patch_size=14)
    CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=image_size).save_pretrained(folder)
    return folder


def _projected_tokenizer(named: dict[str, str]):
    """A byte-level tokenizer with named special tokens, for models that have an adapter behind the vision tower."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()]
    bpe.train_from_iterator(["does the image have a defect compared to the reference? yes, no, a crack, a hole"] * 20,
                            trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False,
                                                initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=named)


def _chat(image: str) -> str:
    return CHAT.replace("<|vision_start|><|image_pad|><|vision_end|>", image)


def _text(tokenizer, width: int) -> dict:
    return {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 1024,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}


def tiny_internvl(folder: Path, width: int = 64, seed: int = 0) -> Path:
    """InternVL with two layers: 56 px tiles of 16 tokens, up to 2 of them and a thumbnail per image."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import (GotOcr2ImageProcessor, InternVLConfig, InternVLForConditionalGeneration,
                              InternVLProcessor, InternVLVideoProcessor)

    torch.manual_seed(seed)
    tokenizer = _projected_tokenizer({"start_image_token": "<img>", "end_image_token": "</img>",
                                      "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"})
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": [56, 56], "patch_size": [7, 7]}
    config = InternVLConfig(vision_config=vision, text_config={"model_type": "qwen2", **_text(tokenizer, width)},
                            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=16,
                            downsample_ratio=0.5)
    images = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=2)
    InternVLProcessor(images, tokenizer, InternVLVideoProcessor(size={"height": 56, "width": 56}), image_seq_length=16,
                      chat_template=_chat("<IMG_CONTEXT>\n")).save_pretrained(folder)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tiny_llava(folder: Path) -> Path:
    """LLaVA with two layers: 56 px images of 16 tokens."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    torch.manual_seed(0)
    tokenizer = _projected_tokenizer({"image_token": "<image>"})
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
              "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "projection_dim": 32}
    config = LlavaConfig(vision_config=vision, text_config={"model_type": "llama", **_text(tokenizer, 64)},
                         image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=16,
                         vision_feature_select_strategy="default")
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    LlavaProcessor(images, tokenizer, patch_size=14, vision_feature_select_strategy="default",
                   num_additional_image_tokens=1, chat_template=_chat("<image>\n")).save_pretrained(folder)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tiny_deep_llava(folder: Path, image_size: int = 56, layers: int = 6, width: int = 64) -> Path:
    """LLaVA whose CLIP tower has the layers that VMAD reads (width 32, patches of 14 px), and a LLaMA of two."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = _tokenizer(("<image>",))
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": layers, "num_attention_heads": 4, "image_size": image_size, "patch_size": 14}
    text = {"model_type": "llama", "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": len(tokenizer),
            "max_position_embeddings": 512, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id}
    config = LlavaConfig(vision_config=vision, text_config=text,
                         image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight *= 20           # frozen as it is made, it could prefer no token to another
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=image_size).save_pretrained(folder)
    return folder


def tiny_sam(folder: Path, image_size: int = 64, patch: int = 8, width: int = 32) -> Path:
    """SAM with two layers, and its image processor. width: of its encoder."""
    from stages.torch_setup import prepare_torch

    prepare_torch()
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel

    torch.manual_seed(0)
    vision = {"hidden_size": width, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": image_size, "patch_size": patch, "num_pos_feats": 16, "window_size": 4,
              "mlp_dim": 2 * width, "global_attn_indexes": [1],
              "initializer_range": 0.02}                           # with SAM's own 1e-10 nothing is seen
    prompt = {"hidden_size": 32, "image_size": image_size, "patch_size": patch,
              "image_embedding_size": image_size // patch}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt,
                       mask_decoder_config=decoder)).save_pretrained(folder)
    side = {"height": image_size, "width": image_size}
    SamImageProcessor(size={"longest_edge": image_size}, pad_size=side,
                      mask_size={"longest_edge": image_size // 4},
                      mask_pad_size={"height": image_size // 4, "width": image_size // 4}).save_pretrained(folder)
    return folder
