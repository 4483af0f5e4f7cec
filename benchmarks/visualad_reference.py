"""VisualAD's released formulas, plainly: one function, float32, no modules. What the fast path is compared with, in
tests and in the benchmark. Weights are those of a CLIP vision tower and of our model."""

from math import ceil, sqrt

import torch
from torch.nn import functional as F


def layer_norm(x, weight, bias, eps):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def forward(model, pixels):
    """(patch features per listed layer after the norm, enhanced tokens per layer, maps (K, B, S, S)), no dropout."""
    clip = model.backbone.vit
    v = getattr(clip, "vision_model", clip)
    w, heads, eps = v.state_dict(), clip.config.num_attention_heads, clip.config.layer_norm_eps
    patches = F.conv2d(pixels, w["embeddings.patch_embedding.weight"], stride=model.backbone.patch)
    grid = patches.shape[-1]
    x = patches.flatten(2).transpose(1, 2)
    b, n, c = x.shape
    position = w["embeddings.position_embedding.weight"]
    side = round((len(position) - 1) ** 0.5)
    own = position[1:]
    if grid != side:
        own = (
            F.interpolate(
                own.reshape(1, side, side, c).permute(0, 3, 1, 2), (grid, grid), mode="bilinear", align_corners=False
            )
            .permute(0, 2, 3, 1)
            .reshape(n, c)
        )
    first = w["embeddings.class_embedding"].reshape(1, 1, c).repeat(b, 1, 1)
    tokens = model.tokens.unsqueeze(0).repeat(b, 1, 1)
    x = torch.cat([tokens, first, x], 1) + torch.cat([model.positions, position[:1], own], 0)
    x = layer_norm(x, w["pre_layrnorm.weight"], w["pre_layrnorm.bias"], eps)
    outputs = []
    for i in range(clip.config.num_hidden_layers):
        p = f"encoder.layers.{i}."
        h = layer_norm(x, w[p + "layer_norm1.weight"], w[p + "layer_norm1.bias"], eps)
        q, k, value = (
            F.linear(h, w[p + f"self_attn.{m}_proj.weight"], w[p + f"self_attn.{m}_proj.bias"])
            .reshape(b, -1, heads, c // heads)
            .transpose(1, 2)
            for m in "qkv"
        )
        attended = (q @ k.transpose(-1, -2) / sqrt(c // heads)).softmax(-1) @ value
        attended = attended.transpose(1, 2).reshape(b, -1, c)
        x = x + F.linear(attended, w[p + "self_attn.out_proj.weight"], w[p + "self_attn.out_proj.bias"])
        h = layer_norm(x, w[p + "layer_norm2.weight"], w[p + "layer_norm2.bias"], eps)
        h = F.linear(h, w[p + "mlp.fc1.weight"], w[p + "mlp.fc1.bias"])
        h = h * torch.sigmoid(1.702 * h)
        x = x + F.linear(h, w[p + "mlp.fc2.weight"], w[p + "mlp.fc2.bias"])
        outputs.append(x)
    normed = [layer_norm(outputs[n - 1], model.norm.weight, model.norm.bias, eps) for n in model.settings.layers]
    last = layer_norm(outputs[-1], model.norm.weight, model.norm.bias, eps)[:, :2]
    features, enhanced, maps = [], [], []
    for features_of, s, saf in zip(normed, model.sca, model.saf, strict=True):
        p = features_of[:, 3:]
        q = layer_norm(s.anchors @ s.query.weight.T, s.query_norm.weight, s.query_norm.bias, 1e-5)
        k = layer_norm((p + s.position.table[: p.shape[1]]) @ s.key.weight.T, s.key_norm.weight, s.key_norm.bias, 1e-5)
        a = torch.softmax(q @ k.transpose(1, 2) / sqrt(c), -1)
        u = a @ (p @ s.value.weight.T)
        new = []
        for t in range(2):
            gate = torch.sigmoid(last[:, t] @ s.gate.weight.T + s.gate.bias)
            taken = (gate.unsqueeze(-1) * u).sum(1)
            new.append(last[:, t] + s.scale * (taken @ s.out.weight.T + s.out.bias))
        h = features_of @ saf[0].weight.T + saf[0].bias  # on all tokens; the first three fall away
        h = h * 0.5 * (1 + torch.erf(h / sqrt(2)))
        h = (h @ saf[3].weight.T + saf[3].bias)[:, 3:]
        score = F.cosine_similarity(h, new[0].unsqueeze(1), -1) - F.cosine_similarity(h, new[1].unsqueeze(1), -1)
        maps.append(
            F.interpolate(score.reshape(b, 1, grid, grid), pixels.shape[-1], mode="bilinear", align_corners=False)[:, 0]
        )
        features.append(p)
        enhanced.append(torch.stack(new, 1))
    return features, enhanced, torch.stack(maps)


def objective(enhanced, maps, masks, labels):
    """The three losses and their sum."""
    fused = maps.sum(0)
    flat = fused.flatten(1).sort(1, descending=True).values
    score = flat[:, : max(1, ceil(0.01 * flat.shape[1]))].mean(1)
    cls = F.binary_cross_entropy(torch.sigmoid(score), labels)
    seg = 0
    for m in maps:
        p = torch.sigmoid(m)
        both = torch.stack([1 - p, p], 1)
        target = torch.stack([1 - masks, masks], 1).clamp(1e-5, 1 - 1e-5)
        pt = (target * both).sum(1) + 1e-5
        seg = seg + (-((1 - pt) ** 2) * torch.log(pt)).mean()
        inter = (p * masks).sum((1, 2))
        seg = seg + 1 - ((2 * inter + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)).mean()
    ctr = torch.relu(F.cosine_similarity(enhanced[-1][:, 0], enhanced[-1][:, 1]) + 0.5).mean()
    return cls, seg, ctr, cls + seg + ctr
