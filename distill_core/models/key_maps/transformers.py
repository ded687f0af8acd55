"""Tables of names of transformers.

Source: the state dicts of timm 1.0 and torchvision 0.28 themselves. A test compares the outputs of
both networks for every table.
"""

from __future__ import annotations

from functools import cache

from distill_core.models.key_maps.key_map import KeyMap, inside, numbered

SWIN_BLOCK = {
    "norm1": "norm1",
    "attn": "attn",
    "norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
SWIN_TINY_DEPTHS = (2, 2, 6, 2)
VIT_BLOCK = {
    "norm1": "ln_1",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}
VIT_B_DEPTH = 12


def swin_t() -> KeyMap:
    """Return timm's names of Swin-T."""
    blocks = [
        (f"layers.{stage}.blocks.{place}", f"features.{2 * stage + 1}.{place}")
        for stage, place, _ in numbered(SWIN_TINY_DEPTHS)
    ]
    between = {f"layers.{stage}.downsample": f"features.{2 * stage}" for stage in (1, 2, 3)}
    ends = {
        "patch_embed.proj": "features.0.0",
        "patch_embed.norm": "features.0.2",
        "norm": "norm",
        "head.fc": "head",
    }
    names = ends | between | inside(blocks, SWIN_BLOCK)
    return KeyMap("timm", "swin_tiny_patch4_window7_224", names)


def vit_b_16() -> KeyMap:
    """Return timm's names of ViT-B/16, whose class token and positions are parameters there."""
    blocks = [
        (f"blocks.{number}", f"encoder.layers.encoder_layer_{number}")
        for number in range(VIT_B_DEPTH)
    ]
    ends = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln",
        "head": "heads.head",
    }
    return KeyMap("timm", "vit_base_patch16_224", ends | inside(blocks, VIT_BLOCK))


@cache
def transformer_maps() -> dict[str, KeyMap]:
    """Return the table of every network of this module, by its name here."""
    return {"swin_t": swin_t(), "vit_b_16": vit_b_16()}
