"""The type of each tensor in a file with a given name: the mixtures that llama-quantize writes.

The names are those under which quantized models are published. More bits go where errors cost most: the head,
attention's values, the feed-forward's down projection, the first and last layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Name: number of the file type, type of most matrices.
MIXES: dict[str, tuple[int, str]] = {
    "F32": (0, "f32"),
    "F16": (1, "f16"),
    "BF16": (32, "bf16"),
    "Q4_0": (2, "q4_0"),
    "Q4_1": (3, "q4_1"),
    "Q5_0": (8, "q5_0"),
    "Q5_1": (9, "q5_1"),
    "Q8_0": (7, "q8_0"),
    "Q2_K": (10, "q2_K"),
    "Q2_K_S": (21, "q2_K"),
    "Q3_K_S": (11, "q3_K"),
    "Q3_K_M": (12, "q3_K"),
    "Q3_K_L": (13, "q3_K"),
    "Q4_K_S": (14, "q4_K"),
    "Q4_K_M": (15, "q4_K"),
    "Q5_K_S": (16, "q5_K"),
    "Q5_K_M": (17, "q5_K"),
    "Q6_K": (18, "q6_K"),
    "IQ1_S": (24, "iq1_s"),
    "IQ1_M": (31, "iq1_m"),
    "IQ2_XXS": (19, "iq2_xxs"),
    "IQ2_XS": (20, "iq2_xs"),
    "IQ2_S": (28, "iq2_xs"),
    "IQ2_M": (29, "iq2_s"),
    "IQ3_XXS": (23, "iq3_xxs"),
    "IQ3_XS": (22, "iq3_s"),
    "IQ3_S": (26, "iq3_s"),
    "IQ3_M": (27, "iq3_s"),
    "IQ4_NL": (25, "iq4_nl"),
    "IQ4_XS": (30, "iq4_xs"),
    "TQ1_0": (36, "tq1_0"),
    "TQ2_0": (37, "tq2_0"),
    "MXFP4_MOE": (38, "mxfp4"),
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_FEW_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
# Small tensors, or such that are read as F32.
_NEVER = re.compile(
    r"_norm\.weight$|ffn_gate_inp\.weight$|^position_embd|^token_types|attn_rel_b"
    r"|ssm_conv1d\.weight$|shortconv\.conv\.weight$"
)
_PARTS = {
    "attn_qkv.weight": "qkv",
    "attn_v.weight": "v",
    "attn_k.weight": "k",
    "attn_q.weight": "q",
    "attn_output.weight": "out",
    "ffn_up": "up",
    "ffn_gate": "gate",
    "ffn_down": "down",
}
_SMALLER_BLOCKS = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_K", "q3_K", "tq1_0", "tq2_0"), "q4_0"),
    "q4_K": "q5_0",
    "q5_K": "q5_1",
    "q6_K": "q8_0",
}


@dataclass(frozen=True)
class ModelTraits:
    """Properties of a model on which the rules depend."""

    n_layer: int
    n_gqa: int  # query heads per KV head
    n_expert: int
    tied: bool  # the head is the embedding
    has_importance: bool
    one_norm: bool  # Falcon: its errors spread differently, so the rules favour other tensors


def quantizable(name: str, n_dims: int) -> bool:
    """Whether a mixture applies to this tensor at all."""
    return n_dims >= 2 and name.endswith("weight") and not _NEVER.search(name)


def part_of(name: str) -> str:
    """The role of a tensor: head, embedding, v, k, …; or other."""
    if name == "output.weight":
        return "head"
    if name == "token_embd.weight":
        return "embedding"
    return next((part for key, part in _PARTS.items() if key in name), "other")


def fallback(kind: str, n: int, block_size: dict[str, int]) -> str:
    """The type for rows of `n` elements, which may not be whole blocks of `kind`."""
    if n % block_size[kind] == 0:
        return kind
    smaller = _SMALLER_BLOCKS.get(kind, kind)
    return smaller if n % block_size[smaller] == 0 else "f16"


class Mixture:
    """Chooses types. Tensors must come in the order of layers and names, since some rules count them."""

    def __init__(self, mix: str, traits: ModelTraits, block_size: dict[str, int]) -> None:
        self.mix, self.traits, self.block_size = mix, traits, block_size
        self.default = MIXES[mix][1]
        self.n_v, self.seen = 0, dict.fromkeys(("v", "down", "gate", "up"), 0)

    def count(self, names: list[str]) -> None:
        """Announce all names, before the first `type_of`."""
        self.n_v = sum(part_of(name) in ("v", "qkv") for name in names)

    def type_of(self, name: str, shape: tuple[int, ...], *, pure: bool = False) -> str:
        """The type of a quantizable tensor; shape in ggml order. pure: the same type for all."""
        if self.default in ("f32", "f16", "bf16"):
            return self.default
        kind = self.default if pure else self._type_by_name(name, shape)
        return fallback(kind, shape[0], self.block_size)

    def _type_by_name(self, name: str, shape: tuple[int, ...]) -> str:
        part, mix, traits = part_of(name), self.mix, self.traits
        if part == "head" or (part == "embedding" and traits.tied):
            return self._head(shape[0])
        if mix == "MXFP4_MOE":
            return "mxfp4" if len(shape) > 2 and shape[2] > 1 else "q8_0"
        if part == "embedding":
            return self._embedding()
        layer = self._layer(name, part)
        if mix in _FEW_BITS:
            return self._few_bits(part, layer)
        rule = getattr(self, f"_{part}", None)
        kind: str = rule(layer) if rule is not None else self.default
        return kind

    def _layer(self, name: str, part: str) -> int:
        counter = "v" if part in ("v", "qkv") else part
        layer = self.seen.get(counter, 0)
        if counter in self.seen:
            self.seen[counter] += 1
        if self.traits.n_expert > 1 and counter != "v" and (block := re.match(r"blk\.(\d+)\.", name)):
            return int(block[1])
        return layer

    def _sensitive(self, layer: int, n: int) -> bool:
        return layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2

    def _head(self, n: int) -> str:
        if self.mix == "MXFP4_MOE" or self.traits.one_norm or n % self.block_size[self.default]:
            return "q8_0"
        if self.mix in (*_FEW_BITS, "IQ3_XXS"):
            return "q5_K"
        return self.default if self.default == "q8_0" else "q6_K"

    def _embedding(self) -> str:
        if self.mix in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return "q2_K"
        if self.mix in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
            return "iq3_s"
        return "q4_K" if self.mix in ("TQ1_0", "TQ2_0") else self.default

    def _few_bits(self, part: str, layer: int) -> str:
        traits, medium = self.traits, self.mix in ("IQ2_S", "IQ2_M")
        if part in ("v", "qkv"):
            if traits.n_gqa >= 4 or traits.n_expert >= 4:
                return "q4_K"
            return "iq3_s" if medium else "q2_K"
        if part == "k" and traits.n_expert == 8:
            return "q4_K"
        if part == "down" and layer < traits.n_layer // 8:
            return "iq3_s" if medium else "q2_K"
        if part == "out":
            if traits.n_expert == 8:
                return "q5_K"
            if self.mix in ("IQ1_S", "IQ1_M"):
                return "iq2_xxs"
            return "iq3_s" if medium else self.default
        return self.default

    def _v(self, layer: int) -> str:
        mix, traits, kind = self.mix, self.traits, self.default
        many = traits.n_gqa >= 4
        if mix == "Q2_K":
            kind = "q4_K" if many else "q3_K"
        elif mix == "IQ3_XXS":
            kind = "q4_K" if many else "iq3_xxs" if traits.has_importance else "iq3_s"
        elif mix == "IQ3_M" or (mix in ("Q2_K_S", "IQ3_XS", "IQ3_S") and many):
            kind = "q4_K"
        elif mix == "Q3_K_M":
            kind = "q5_K" if layer < 2 else "q4_K"
        elif mix == "Q3_K_L" or (mix in ("IQ4_NL", "IQ4_XS") and many) or (mix == "Q4_K_S" and layer < 4):
            kind = "q5_K"
        elif mix in ("Q4_K_M", "Q5_K_M") and self._sensitive(layer, self.n_v):
            kind = "q6_K"
        if traits.n_layer == 80 and traits.n_gqa > 1 and kind in ("q3_K", "q4_K"):
            kind = "q5_K"  # of the 70B models, where it is small beside Q
        return "q8_0" if traits.n_expert == 8 else kind

    _qkv = _v

    def _k(self, layer: int) -> str:
        return "q8_0" if self.traits.n_expert == 8 else self._q(layer)

    def _q(self, layer: int) -> str:
        return {"IQ3_XS": "iq3_xxs", "IQ3_XXS": "iq2_s"}.get(self.mix, self.default)

    def _down(self, layer: int) -> str:
        mix, traits, n = self.mix, self.traits, self.traits.n_layer
        early, sensitive, falcon = layer < n // 8, self._sensitive(layer, n), traits.one_norm
        if mix == "Q2_K":
            return "q3_K"
        if mix == "Q2_K_S" and early:
            return "q4_K"
        if mix == "IQ3_XXS" and not traits.has_importance:
            return "q4_K" if early else "q3_K"
        if mix == "Q3_K_M":
            if layer < n // 16:
                return "q5_K"
            return "q4_K" if not falcon or sensitive else "q3_K"
        if mix == "IQ3_M" and (early or (traits.n_expert == 8 and sensitive)):
            return "q4_K"
        if mix == "Q3_K_L":
            return "q4_K" if falcon else "q5_K"
        if mix == "Q4_K_M" and falcon:
            return "q6_K" if layer < n // 16 else "q5_K" if sensitive else "q4_K"
        if mix in ("Q4_K_M", "Q5_K_M") and sensitive:
            return "q6_K"
        if early and (
            (mix in ("IQ4_NL", "IQ4_XS") and not traits.has_importance) or (mix == "Q4_K_S" and not falcon)
        ):
            return "q5_K"
        if early and traits.has_importance and mix in ("Q4_0", "Q5_0"):
            return "q4_1" if mix == "Q4_0" else "q5_1"
        return self.default

    def _out(self, layer: int) -> str:
        mix = self.mix
        if self.traits.one_norm:
            return "q4_K" if mix == "Q3_K_L" else self.default
        if self.traits.n_expert == 8:
            more = ("Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M")
            return "q5_K" if mix in (*more, "IQ3_S", "IQ3_M", "IQ4_XS") else self.default
        kinds = {"Q2_K": "q3_K", "IQ3_XXS": "iq3_s", "Q3_K_M": "q4_K", "Q3_K_L": "q5_K", "IQ3_M": "q4_K"}
        return kinds.get(mix, self.default)

    def _up(self, layer: int) -> str:
        n = self.traits.n_layer
        middle = n // 8 <= layer < 7 * n // 8
        return "iq3_xxs" if self.mix == "IQ3_XS" and middle else self.default

    _gate = _up
