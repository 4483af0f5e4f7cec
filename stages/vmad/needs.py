"""What a training needs of each GPU, counted from the configurations before any weight is read; nothing is measured.

Weights are counted on a model of the same shape without storage, and so are exact. What waits for the way back is
counted too: of the projector and the mask decoder by running them without storage, in float32 (in bf16 they keep a
quarter less); of the language model and the logits by adding up what their layers keep. What is only there while one
part works counts once, the largest. For tiny models it is 0.85 and 0.88 times what torch saves (the tests allow 0.8 to
1.5). CUDA itself takes about 0.5 GiB more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stages.training.prepared import torch

from torch import Tensor, nn
from transformers import LlavaConfig, SamConfig

from stages.base.errors import InputError
from stages.vmad.build import without_storage
from stages.vmad.config import VmadSettings
from stages.vmad.dssl import SAMPLES
from stages.vmad.model import Vmad, at_once, trainable

GIB = 2**30
MASK_COPIES = 8  # of the canvas, float32, that the two mask losses keep
COPIES = {"weights": 4, "gradients": 4, "AdamW's two moments": 8}  # bytes per trained number, float32
REMEDY = "--micro-batch 1 and --checkpoint-activations need less"


@dataclass(frozen=True)
class Needs:
    """Bytes on one GPU. frozen: weights; trained: weights, gradients, AdamW's moments, and what mixed precision and
    several processes add; language, logits, masks, images: what waits for the way back, the last being CLIP's layers
    of a batch and of DSSL's patches; working: the most that one part takes while it works; sam: the same of SAM's
    encoder, which is done before the language model begins."""

    frozen: int
    trained: int
    language: int
    logits: int
    masks: int
    images: int
    working: int
    sam: int

    @property
    def weights(self) -> int:
        """What is there all the time."""
        return self.frozen + self.trained

    @property
    def activations(self) -> int:
        """At their most."""
        return max(self.sam, self.language + self.logits + self.masks + self.images + self.working)

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def said(self, place: str) -> str:
        """One line. place: 'each GPU'."""
        unit, name = (GIB, "GiB") if self.total >= GIB else (2**20, "MiB")
        return (
            f"needs about {self.total / unit:.1f} {name} on {place}: {self.frozen / unit:.1f} frozen weights,"
            f" {self.trained / unit:.1f} what is trained with its gradients and AdamW's moments,"
            f" {self.activations / unit:.1f} activations"
        )

    def check(self, free: int) -> str:
        """What to say when `free` bytes are fewer than needed; '' when they are not. Raises InputError when not even
        the weights fit, whose count is exact."""
        lack = f"{free / GIB:.1f} GiB of the GPU are free, {self.total / GIB:.1f} are needed"
        if free < self.weights:
            raise InputError(
                f"{lack}, {self.weights / GIB:.1f} of them for weights alone; free the GPU, or train on a larger one"
            )
        return f"{lack}, counted and not measured, and it may run out: {REMEDY}" if free < self.total else ""


def needs(
    llava: LlavaConfig,
    sam: SamConfig,
    settings: VmadSettings,
    seg: int,
    tokens: int,
    micro_batch: int,
    bf16: bool,
    recompute: bool = False,
    processes: int = 1,
    layers_kept: bool = True,
) -> Needs:
    """seg: id of `<seg>`; tokens: of the longest sample; recompute: --checkpoint-activations; processes: of the
    training; layers_kept: the memory holds CLIP's layers, not pixels."""
    size = 2 if bf16 else 4
    model = without_storage(llava, sam, settings, seg, torch.bfloat16 if bf16 else torch.float32).train()
    trained = sum(p.numel() for p in trainable(model).values())
    each = sum(COPIES.values()) + (2 if bf16 else 0) + (4 if processes > 1 else 0)  # bf16 copies; buckets that are sent
    language = model.base.config.text_config
    rows, words = micro_batch * tokens, len(model.base.get_input_embeddings().weight)
    one = layer(language, settings, size)
    per_token = (
        size * language.hidden_size * language.num_hidden_layers if recompute else one * language.num_hidden_layers
    )
    read = clip_bytes(llava, settings, size)
    pieces = settings.boxes * settings.dssl  # of an image
    memory = 0 if layers_kept or not settings.dssl else 2 * settings.drawn
    some = min(at_once(llava.vision_config), micro_batch * max(settings.boxes, 2 * settings.drawn))
    working = (
        rows * words * (size + 8),  # logits
        some * projector(model, llava),
        some * clip(llava),
        crops(llava, pieces),
        rows * one if recompute else 0,
    )
    return Needs(
        frozen=stored(p for p in model.parameters() if not p.requires_grad),
        trained=trained * each,
        language=rows * per_token,
        logits=rows * words * 4 + words * language.hidden_size * size,  # PEFT's copy of all rows, for one that is new
        masks=micro_batch * decoder(model),
        images=micro_batch * (1 + pieces + memory) * read,
        working=max(working),
        sam=encoder(sam, size),
    )


def stored(tensors: Iterable[Tensor]) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def clip_bytes(llava: LlavaConfig, settings: VmadSettings, size: int) -> int:
    """Of CLIP's layers that the projector reads, per image. size: bytes per number."""
    vision = llava.vision_config
    return settings.layers * (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size * size


def layer(text, settings: VmadSettings, size: int) -> int:
    """Bytes per token that a layer of LLaMA keeps: three of the MLP's width, query, key, value and what attention
    gives; in float32 the input of each norm; LoRA's two inputs, and with dropout their masks. text: its
    configuration."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    attention = 2 * (text.num_attention_heads + text.num_key_value_heads) * head
    floats = 2 + (2 if settings.dropout else 0)
    return size * (3 * text.intermediate_size + attention + 2 * text.hidden_size) + 4 * floats * text.hidden_size


def projector(model: Vmad, llava: LlavaConfig) -> int:
    """Bytes that the projector keeps per image while it is computed again."""
    vision = llava.vision_config
    shape = (1, (vision.image_size // vision.patch_size) ** 2, model.projector.layers * vision.hidden_size)
    return kept(model.projector, lambda: model.projector.projected(torch.empty(shape, device="meta")))


def decoder(model: Vmad) -> int:
    """Bytes that the mask decoder and the losses of its mask keep per image."""
    canvas, width = model.transform.sam_size, model.base.config.text_config.hidden_size
    side = model.sam.prompt_encoder.image_embedding_size[0]
    states = torch.empty(1, width, device="meta", requires_grad=True)
    features = torch.empty(1, model.gamma[-1].out_features, side, side, device="meta")
    return kept(model, lambda: model.mask_logits(states, features)) + MASK_COPIES * 4 * canvas**2


def kept(module: nn.Module, work: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves in `work`, beside the module's weights."""
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage  # held, or its number would be another's
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(storage.nbytes() for storage in found.values())


def clip(llava: LlavaConfig) -> int:
    """Bytes of all layers' outputs, float32, of an image."""
    vision = llava.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    return (vision.num_hidden_layers + 1) * tokens * vision.hidden_size * 4


def crops(llava: LlavaConfig, pieces: int) -> int:
    """Bytes of the points of one image's patches: their places (two copies of two numbers) and three channels."""
    return pieces * (SAMPLES * llava.vision_config.image_size) ** 2 * (2 * 2 + 3) * 4


def encoder(sam: SamConfig, size: int) -> int:
    """Bytes of one image's attention over all positions, and a copy of it."""
    vision = sam.vision_config
    return 2 * vision.num_attention_heads * (vision.image_size // vision.patch_size) ** 4 * size
