"""VMAD (section III-B): LLaVA with a compressing projector, a `<seg>` token, and SAM's mask decoder.

Which state of the language model is the `<seg>` token's: the text says the token's own, the one that is read at its
position. (LISA, whose scheme this is, takes the one before, from which the token is predicted.)
"""

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, LlavaForConditionalGeneration, SamModel

from stages.vmad import loss
from stages.vmad.config import LossWeights, VmadSettings
from stages.vmad.dssl import Dssl, log_similarity, pbsd, random_boxes, roi
from stages.vmad.memory import Memory, MemoryBatch
from stages.vmad.projectors import Projector
from stages.vmad.transform import ClipSamTransform, normalised

AT_ONCE = 4  # images of CLIP ViT-L/14 at 336 px that go through it and the projector at a time, for DSSL
LARGE = 24**2 * 1024  # numbers of such an image in a layer


def at_once(vision: CLIPVisionConfig) -> int:
    """Images of a tower that go through it and the projector at a time, for DSSL: more of a smaller one, of whose
    working memory no more is needed."""
    numbers = (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size
    return max(AT_ONCE, AT_ONCE * LARGE // numbers)


class Vmad(nn.Module):
    """llava: LlavaForConditionalGeneration with our projector, or PEFT's wrapper of one; sam: SamModel; seg: id of the
    `<seg>` token. Of all this, `trainable` says what is trained."""

    def __init__(
        self,
        llava: nn.Module,
        sam: SamModel,
        settings: VmadSettings,
        weights: LossWeights,
        transform: ClipSamTransform,
        seg: int,
    ) -> None:
        super().__init__()
        self.llava, self.sam = llava, sam
        self.settings, self.weights, self.transform, self.seg = settings, weights, transform, seg
        text, visual = self.base.config.text_config.hidden_size, sam.config.mask_decoder_config.hidden_size
        self.gamma = nn.Sequential(nn.Linear(text, text), nn.ReLU(), nn.Linear(text, visual))
        self.dssl = Dssl(visual, text) if settings.dssl else None
        self.memory: Memory | None = None  # set for training with DSSL; no part of the weights
        for name in ("clip_mean", "clip_std", "sam_mean", "sam_std"):
            self.register_buffer(name, torch.tensor(getattr(transform, name)), persistent=False)

    @property
    def base(self) -> LlavaForConditionalGeneration:
        """The LlavaForConditionalGeneration itself."""
        return self.llava.get_base_model() if hasattr(self.llava, "peft_config") else self.llava

    @property
    def device(self) -> torch.device:
        """Where its inputs belong."""
        return self.clip_mean.device

    @property
    def projector(self) -> Projector:
        return self.base.model.multi_modal_projector

    def own_parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside LoRA, by name."""
        parts = {"projector": self.projector, "gamma": self.gamma, "decoder": self.sam.mask_decoder}
        return parts | ({"dssl": self.dssl} if self.dssl else {})

    def train(self, mode: bool = True) -> "Vmad":
        """As of any module, but the frozen encoders stay in evaluation mode."""
        super().train(mode)
        self.sam.vision_encoder.eval()
        self.base.model.vision_tower.eval()
        return self

    def recompute_activations(self) -> None:
        """From now on the language model's layers, too, are computed again on the way back."""
        self.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    # -- training ---------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        clip_inputs: Tensor,
        sam_inputs: Tensor,
        content_sizes: Tensor,
        masks: Tensor,
        segmented: Tensor,
        classes: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of a batch: `loss` and the parts of Eq. 6, Eq. 7 that it has.

        input_ids, attention_mask, labels: (B, T); clip_inputs: (B, 3, S, S) uint8; sam_inputs: (B, 3, K, K) uint8;
        content_sizes: (B, 2) px; masks: (B, K, K) 0 or 1; segmented: (B,) bool, answers with `<seg>`; classes: (B,)
        numbers of the classes, as the memory counts them.
        """
        inputs = self.for_sam(sam_inputs, content_sizes)
        features = self.visual_features(inputs)  # first: what SAM works with is free before the language model's
        hidden = self.hidden_states(input_ids, attention_mask, self.for_clip(clip_inputs))
        parts = {"text": loss.text_loss(self.base.lm_head(hidden), labels)}
        if segmented.any():
            logits = self.mask_logits(self.seg_states(hidden, input_ids)[segmented], features[segmented])
            targets, content = masks[segmented].float(), self.content(content_sizes)[segmented].float()
            wide = functional.interpolate(logits[:, None], masks.shape[-1], mode="bilinear")[:, 0]
            parts |= {"bce": loss.bce(wide, targets, content), "dice": loss.dice(wide, targets, content)}
        if self.dssl:
            parts["pbsd"] = self.structure_loss(features, inputs, content_sizes, classes)
        return {"loss": loss.total(parts, self.weights)} | {n: p.detach() for n, p in parts.items()}

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, pixels: Tensor) -> Tensor:
        """(B, T, D) after the language model's last layer and its norm, of the tokens of images (Eq. 1, Eq. 2) and of
        text: what the answer is predicted from (Eq. 3)."""
        return self.base.model(  # Eq. 1, Eq. 2, Eq. 3
            input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixels
        ).last_hidden_state

    def seg_states(self, hidden: Tensor, input_ids: Tensor) -> Tensor:
        """(B, D): the state at each row's last `<seg>`; of a row without one, some state."""
        at = (input_ids == self.seg) * torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        return hidden[torch.arange(len(hidden), device=hidden.device), at.argmax(1)]

    def mask_logits(self, states: Tensor, features: Tensor) -> Tensor:
        """Eq. 4, Eq. 5. states: (B, D), features: (B, C, h, w) -> (B, 4 h, 4 w)."""
        prompts = self.gamma(states)[:, None, None]  # Eq. 4: one mask of one prompt token per image
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        positions = self.sam.get_image_wide_positional_embeddings().expand(len(states), -1, -1, -1)
        masks, _ = self.sam.mask_decoder(  # Eq. 5
            image_embeddings=features.to(prompts.dtype),
            image_positional_embeddings=positions.to(prompts.dtype),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense.to(prompts.dtype),
            multimask_output=False,
        )
        return masks[:, 0, 0].float()

    # -- images -----------------------------------------------------------------------------------

    def for_clip(self, clip_inputs: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> what CLIP takes."""
        return normalised(clip_inputs, self.clip_mean, self.clip_std)

    def for_sam(self, sam_inputs: Tensor, content_sizes: Tensor) -> Tensor:
        """(B, 3, K, K) uint8 -> what SAM takes: 0 outside the content."""
        return normalised(sam_inputs, self.sam_mean, self.sam_std) * self.content(content_sizes)[:, None]

    def content(self, content_sizes: Tensor) -> Tensor:
        """(B, K, K) bool: where SAM's input shows the image."""
        at = torch.arange(self.transform.sam_size, device=content_sizes.device)
        return (at[None, :, None] < content_sizes[:, 0, None, None]) & (
            at[None, None] < content_sizes[:, 1, None, None]
        )

    def visual_features(self, inputs: Tensor) -> Tensor:
        """f of Eq. 4: (B, C, h, w), without gradient. In training one image at a time: SAM's attention over all
        positions needs 1 GiB for each."""
        dtype = next(self.sam.vision_encoder.parameters()).dtype
        some = inputs.to(dtype).split(1 if self.training else len(inputs))
        return torch.cat([self.sam.get_image_embeddings(few) for few in some]).float()  # f of Eq. 4

    @torch.no_grad()
    def clip_layers(self, pixels: Tensor) -> Tensor:
        """What the projector reads of CLIP: (n, 3, S, S) as CLIP takes them -> (n, N, layers C), in CLIP's dtype."""
        tower, chosen = self.base.model.vision_tower, self.base.config.vision_feature_layer
        dtype, found = next(tower.parameters()).dtype, []
        for few in pixels.split(at_once(self.base.config.vision_config)):
            states = tower(few, output_hidden_states=True, return_dict=True).hidden_states
            found.append(torch.cat([states[n][:, 1:] for n in chosen], -1).to(dtype))
        return torch.cat(found)

    # -- DSSL -------------------------------------------------------------------------------------

    def structure_loss(self, features: Tensor, inputs: Tensor, content_sizes: Tensor, classes: Tensor) -> Tensor:
        """Eq. 8 to Eq. 17 for each image of the batch and the memory of its class. features: f; inputs: SAM's."""
        drawn = self.memory.draw(classes).to(features.device)  # Eq. 10, Eq. 14, Eq. 15
        boxes = random_boxes(content_sizes, self.settings.boxes, self.settings.box_size).to(features.device)
        visual = self.visual_similarity(features, boxes, drawn)
        text = self.text_similarity(self.crops(inputs, boxes), drawn)
        return pbsd(visual, text, drawn.normal & drawn.valid)  # Eq. 17

    @torch.no_grad()
    def visual_similarity(self, features: Tensor, boxes: Tensor, drawn: MemoryBatch) -> Tensor:
        """Eq. 8, Eq. 9, Eq. 11: logarithms (B, Nb, m). features: f; boxes: (B, Nb, 4), px of SAM's input."""
        cells = boxes * (features.shape[-1] / self.transform.sam_size)
        v = self.dssl.local(roi(features, cells)[..., 0, 0])  # Eq. 8
        z = self.dssl.overall(drawn.features)  # Eq. 9
        return log_similarity(v, z, self.settings.temperature, drawn.valid)  # Eq. 11

    def text_similarity(self, crops: Tensor, drawn: MemoryBatch) -> Tensor:
        """Eq. 12, Eq. 13, Eq. 16: logarithms (B, Nb, m). crops: (B, Nb, 3, S, S) as CLIP takes them."""
        patches = self.pooled_tokens(self.clip_layers(crops.flatten(0, 1))).unflatten(0, crops.shape[:2])  # Eq. 12: T_v
        seen = drawn.images.flatten(0, 1)
        if seen.dtype == torch.uint8:
            seen = self.clip_layers(self.for_clip(seen.to(self.device)))
        images = self.pooled_tokens(seen).unflatten(0, drawn.valid.shape)
        t_x = self.description(drawn.described, drawn.described_mask)
        theta = self.dssl.semantic_tokens(images, t_x[:, None])  # Eq. 13
        patches, theta = functional.normalize(patches, dim=-1), functional.normalize(theta, dim=-1)
        return log_similarity(patches, theta, self.settings.temperature, drawn.valid)  # Eq. 16

    @torch.no_grad()
    def crops(self, inputs: Tensor, boxes: Tensor) -> Tensor:
        """I_box of Eq. 12: (B, Nb, 3, S, S) as CLIP takes them. inputs: SAM's. One image at a time, since the points of
        all boxes take 0.7 GiB for each."""
        size = self.transform.clip_size
        each = [roi(one, own, size) for one, own in zip(inputs.split(1), boxes.split(1), strict=True)]
        return self.sam_to_clip(torch.cat(each))  # Eq. 12: I_box

    def sam_to_clip(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) normalised for SAM -> normalised for CLIP."""
        pixels = pixels * self.sam_std[:, None, None] + self.sam_mean[:, None, None]
        return (pixels - self.clip_mean[:, None, None]) / self.clip_std[:, None, None]

    def pooled_tokens(self, layers: Tensor) -> Tensor:
        """Mean over tokens of Psi: (n, N, layers C) of `clip_layers`, on any device -> (n, D)."""
        some = layers.split(at_once(self.base.config.vision_config))
        return torch.cat([self.projector(few).float().mean(1) for few in some])

    def description(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) -> (B, D): the mean of the input embeddings of the normal description."""
        embeddings = self.base.get_input_embeddings()(ids).float() * mask[..., None]
        return embeddings.sum(1) / mask.sum(1, keepdim=True)


def trainable(model: Vmad) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that is trained."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}
