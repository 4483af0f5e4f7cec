"""From a LLaVA and a SAM checkpoint to a VMAD model."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor, nn
from transformers import (
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SamConfig,
    SamModel,
)

from stages.base.errors import InputError, cannot_be_loaded, first_line
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.vmad.config import SEG, LossWeights, VmadSettings
from stages.vmad.data import NO_TEXTS, PromptEncoder
from stages.vmad.descriptions import general
from stages.vmad.dssl import boxes_at, overall_features, random_boxes, roi
from stages.vmad.memory import Class, Memory
from stages.vmad.model import Vmad, trainable
from stages.vmad.projectors import Projector
from stages.vmad.transform import ClipSamTransform

MEMORY_PATCHES = 4  # of an image, where the memory is of patches: 4 times as many as are drawn of as many images
LORA_TARGETS = r".*language_model.*\.(q_proj|v_proj)"  # LISA's; the paper names only the rank


def new_model(
    llava_name: str,
    sam_name: str,
    settings: VmadSettings,
    weights: LossWeights,
    revisions: tuple[str, str] = ("", ""),
    dtype: torch.dtype = torch.float32,
) -> tuple[Vmad, PromptEncoder]:
    """(untrained model, how it reads text). dtype: of what stays frozen; what is trained is float32.

    Raises:
        InputError: see `read_llava`, `text_of`, `load_llava`, `load_sam` and `transform_of`.
    """
    config, tokenizer = read_llava(llava_name, revisions[0])
    text = text_of(config, tokenizer, settings, llava_name)
    llava = load_llava(llava_name, revisions[0], dtype)
    sam, sam_transform = load_sam(sam_name, revisions[1], dtype)
    transform = transform_of(llava_name, revisions[0], config, sam_transform)
    return assembled(llava, sam, settings, weights, transform, text.seg), text


def assembled(
    llava: LlavaForConditionalGeneration,
    sam: SamModel,
    settings: VmadSettings,
    weights: LossWeights,
    transform: ClipSamTransform,
    seg: int,
) -> Vmad:
    """The untrained model made of these two."""
    add_token_row(llava, seg)
    replace_projector(llava, settings)
    return freeze(Vmad(with_lora(llava, settings, seg), sam, settings, weights, transform, seg))


def without_storage(llava: LlavaConfig, sam: SamConfig, settings: VmadSettings, seg: int, dtype: torch.dtype) -> Vmad:
    """A model of the shape that `new_model` makes, on torch's meta device: for counting."""
    llava, grey = copy.deepcopy(llava), (0.5, 0.5, 0.5)  # what is assembled changes it
    clip_size, sam_size = llava.vision_config.image_size, sam.vision_config.image_size
    with torch.device("meta"):
        base = LlavaForConditionalGeneration._from_config(llava, dtype=dtype)
        backbone = SamModel(sam)
        backbone.vision_encoder.to(dtype)
        transform = ClipSamTransform(clip_size, grey, grey, sam_size, grey, grey)
        return assembled(base, backbone, settings, LossWeights(), transform, seg)


def read_llava(name: str, revision: str) -> tuple[LlavaConfig, PreTrainedTokenizerBase]:
    """(configuration, tokenizer). Raises InputError: it cannot be loaded, or see `check_llava`."""
    try:
        config = AutoConfig.from_pretrained(name, revision=revision or None)
        check_llava(config, name)
        return config, AutoTokenizer.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError) as e:
        raise not_loaded("--llava", name, e) from e


def not_loaded(option: str, name: str, error: Exception) -> InputError:
    """Why a model cannot be loaded, in a line: mostly its name is wrong."""
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        return InputError(
            f"{option} {name}: cannot be loaded, there is no such folder; expected one with a checkpoint"
            " in transformers' format, or a hub id such as organisation/model"
        )
    return cannot_be_loaded(f"{option} {name}", error)


def text_of(
    config: LlavaConfig, tokenizer: PreTrainedTokenizerBase, settings: VmadSettings, name: str
) -> PromptEncoder:
    """How a model of these settings reads text; `<seg>` is added to the tokenizer.

    Raises:
        InputError: settings that this LLaVA cannot have, a tokenizer without its image token, or a vocabulary that
            has a `<seg>` already, whose meaning nobody here knows.
    """
    vision = config.vision_config
    grid = vision.image_size // vision.patch_size
    try:
        settings.check_llava(grid, layer_of(config) - 1, vision.hidden_size)
    except InputError as e:
        raise InputError(f"{e} (--llava {name})") from None
    if tokenizer.convert_ids_to_tokens(config.image_token_id) is None:
        raise InputError(
            f"--llava {name}: its tokenizer has no image token (number {config.image_token_id}), as"
            " LLaVA's own releases have none; give one in transformers' format, for example"
            " llava-hf/llava-1.5-7b-hf"
        )
    if SEG in tokenizer.get_vocab():
        raise InputError(
            f"--llava {name}: its vocabulary already has {SEG}; start from the LLaVA checkpoint without it"
            " (a training that was interrupted goes on when its command is run again)"
        )
    tokenizer.add_tokens([AddedToken(SEG, normalized=False)])
    return PromptEncoder(tokenizer, config.image_token_id, settings.tokens(grid), tokenizer.convert_tokens_to_ids(SEG))


def layer_of(config: LlavaConfig) -> int:
    """Which of CLIP's hidden states LLaVA takes, 0 = the embeddings."""
    last = config.vision_feature_layer
    return last if last >= 0 else config.vision_config.num_hidden_layers + 1 + last


def load_llava(name: str, revision: str, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """Raises InputError as `load_complete` does."""
    return load_complete(LlavaForConditionalGeneration, "--llava", name, revision, dtype)


def load_complete(
    kind: type[PreTrainedModel], option: str, name: str, revision: str, dtype: torch.dtype
) -> PreTrainedModel:
    """A model of this class. Raises InputError when it cannot be loaded, or when its files lack weights, which
    transformers would make up: LLaVA's own releases before the conversion are so, and a language model alone."""
    try:
        model, loading = kind.from_pretrained(
            name, revision=revision or None, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise not_loaded(option, name, e) from e
    if lacking := sorted(loading["missing_keys"]):
        raise InputError(
            f"{option} {name}: {len(lacking)} of its weights are not in its files, the first"
            f" {lacking[0]}; give a complete checkpoint in transformers' format"
        )
    return model


def check_llava(config: LlavaConfig, name: str) -> None:
    """Raises InputError for a model that is no LLaVA with a CLIP tower whose one layer it takes."""
    if config.model_type != "llava":
        raise InputError(
            f"--llava {name}: a {config.model_type} model; VMAD is built on LLaVA 1.x"
            " (for example llava-hf/llava-1.5-7b-hf)"
        )
    tower = config.vision_config.model_type
    if tower != "clip_vision_model":
        raise InputError(
            f"--llava {name}: its vision tower is a {tower}; VMAD needs LLaVA with a CLIP tower"
            " (for example llava-hf/llava-1.5-7b-hf)"
        )
    if not isinstance(config.vision_feature_layer, int) or config.vision_feature_select_strategy != "default":
        raise InputError(
            f"--llava {name}: takes several layers of its vision tower, or its class token; VMAD is built"
            " on LLaVA 1.x, which takes the patch tokens of one layer"
        )


def check_sam(name: str, revision: str) -> SamConfig:
    """Its configuration. Raises InputError: it cannot be loaded, or is no SAM."""
    try:
        config = AutoConfig.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError) as e:
        raise not_loaded("--sam", name, e) from e
    if config.model_type != "sam":
        raise InputError(f"--sam {name}: a {config.model_type} model; expected SAM (for example facebook/sam-vit-huge)")
    return config


def load_sam(name: str, revision: str, dtype: torch.dtype) -> tuple[SamModel, dict]:
    """(SAM, its encoder in `dtype`; its part of the ClipSamTransform). Raises InputError as `check_sam` and
    `load_complete` do."""
    check_sam(name, revision)
    sam = load_complete(SamModel, "--sam", name, revision, torch.float32)
    sam.vision_encoder.to(dtype)  # the decoder is trained, and what tells it positions needs all its digits
    processor = image_processor("--sam", name, revision)
    return sam, {
        "sam_size": sam.config.vision_config.image_size,
        "sam_mean": tuple(processor.image_mean),
        "sam_std": tuple(processor.image_std),
    }


def transform_of(name: str, revision: str, config: LlavaConfig, sam_transform: dict) -> ClipSamTransform:
    """How the two encoders want images: CLIP's numbers from LLaVA's own processor. Raises InputError: it has none."""
    clip = image_processor("--llava", name, revision)
    size = config.vision_config.image_size
    return ClipSamTransform(size, tuple(clip.image_mean), tuple(clip.image_std), **sam_transform)


def image_processor(option: str, name: str, revision: str) -> BaseImageProcessor:
    """Raises InputError when it cannot be loaded."""
    try:
        return AutoImageProcessor.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError) as e:
        raise InputError(f"{option} {name}: its image processor cannot be loaded ({first_line(e)})") from e


def add_token_row(llava: LlavaForConditionalGeneration, seg: int) -> None:
    """The new token's rows of the input and the output embeddings start at the mean of all rows. Checkpoints often
    have rows to spare; where they have none, they grow."""
    if seg >= llava.config.text_config.vocab_size:
        llava.resize_token_embeddings(seg + 1, mean_resizing=False)
    with torch.no_grad():
        for rows in (llava.get_input_embeddings().weight, llava.get_output_embeddings().weight):
            rows[seg] = rows[:seg].mean(0)


def replace_projector(llava: LlavaForConditionalGeneration, settings: VmadSettings) -> None:
    """Put our projector around LLaVA's own, and let LLaVA hand it the layers that it reads."""
    config, index = llava.config, layer_of(llava.config)
    vision = config.vision_config
    llava.model.multi_modal_projector = Projector(
        settings,
        llava.model.multi_modal_projector,
        vision.hidden_size,
        config.text_config.hidden_size,
        vision.image_size // vision.patch_size,
    ).float()
    config.vision_feature_layer = list(range(index - settings.layers + 1, index + 1))
    config.image_seq_length = llava.model.multi_modal_projector.tokens


def with_lora(llava: LlavaForConditionalGeneration, settings: VmadSettings, seg: int) -> nn.Module:
    """PEFT's wrapper: LoRA in the language model's attention, and the new token's rows, the only ones that are
    trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=LORA_TARGETS,
        trainable_token_indices={"embed_tokens": [seg], "lm_head": [seg]},
        task_type="CAUSAL_LM",
    )
    return get_peft_model(llava, config)


def freeze(model: Vmad) -> Vmad:
    """Train LoRA, the projector, the MLPs and the mask decoder, in float32; nothing else. What a parameter cannot
    influence is left out: SAM's other three masks and its estimate of the mask's quality."""
    unused = [model.sam.mask_decoder.iou_prediction_head, *model.sam.mask_decoder.output_hypernetworks_mlps[1:]]
    adapters = {n for n, p in model.llava.named_parameters() if p.requires_grad}
    model.requires_grad_(False)
    for name, p in model.llava.named_parameters():
        p.requires_grad_(name in adapters)
    trained: list[nn.Module] = [model.projector, model.gamma, model.sam.mask_decoder]
    trained += [model.dssl.meta] if model.dssl else []
    for part in trained:
        part.requires_grad_(True).float()
    for part in unused:
        part.requires_grad_(False)
    for p in trainable(model).values():
        p.data = p.data.float()
    return model


@torch.no_grad()
def build_memory(
    chosen: dict[Class, tuple[Image, ...]],
    model: Vmad,
    text: PromptEncoder,
    per_label: int,
    layers: bool = True,
    told: Mapping[Class, str] = NO_TEXTS,
) -> Memory:
    """Read the images and compute what is frozen, as a step of the training would. model: on its device. layers: keep
    CLIP's layers; false: its pixels; told: t_x of each class (Eq. 13), the general sentence where there is none.
    Raises ImageError."""
    kept, features, normal, owner = [], [], [], []
    dtype = next(model.base.model.vision_tower.parameters()).dtype
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        for number, images in enumerate(chosen.values()):
            for image in images:
                f, pixels = remembered(model, image)
                features.append(f.cpu())
                kept.append(model.clip_layers(model.for_clip(pixels)).cpu() if layers else pixels.cpu())
                normal += [image.label == 0] * len(f)
                owner += [number] * len(f)
    ids = [text.tokenizer(told.get(name) or general(name[1]), add_special_tokens=False).input_ids for name in chosen]
    described, mask = padded(ids)
    return Memory(
        torch.cat(kept), torch.cat(features), torch.tensor(normal), torch.tensor(owner), described, mask, per_label
    )


def remembered(model: Vmad, image: Image) -> tuple[Tensor, Tensor]:
    """(features (n, C), CLIP's pixels (n, 3, S, S) uint8) that the memory holds of an image: of all of it; with the
    target `patches` of MEMORY_PATCHES of its own, at random in a normal image and on the defect in others."""
    rgb, transform, settings = load_rgb(image.file), model.transform, model.settings
    content = transform.content_size(rgb.shape)
    contents = torch.tensor([content], device=model.device)
    pixels = transform.sam_input(rgb)[None].to(model.device)
    f = model.visual_features(model.for_sam(pixels, contents))
    stride = transform.sam_size / f.shape[-1]
    if settings.target != "patches":
        return overall_features(f, contents, stride), transform.clip_input(rgb)[None].to(model.device)
    mask = transform.mask(image.masks, content) if image.label else torch.zeros(1)
    boxes = random_boxes(contents, MEMORY_PATCHES, settings.box_size)
    if mask.any():
        boxes = boxes_at(mask, content, MEMORY_PATCHES, settings.box_size)[None]
    boxes = boxes.to(model.device)
    crops = roi(pixels.float(), boxes, transform.clip_size)[0].round().to(torch.uint8)
    return roi(f, boxes / stride)[0, :, :, 0, 0], crops


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(ids, mask), both (rows, longest), zeros to the right."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*r, *[0] * (longest - len(r))] for r in rows])
    return ids, torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
