"""What every architecture has: hyperparameters read from the file by key, slots, and a graph.

Values that we do not implement are refused here, at load, by key name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from engine.errors import ModelError, UnsupportedModelError
from engine.nn.binder import Binder

# Keys that change the graph of whatever architecture reads them, and what they say where nothing changes.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "expert_weights_scale": (0.0, 1.0),
    "leading_dense_block_count": (0,),
}
POOLING = ("none", "mean", "cls", "last", "rank")  # by the numbers of `pooling_type`


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding. mode: norm (adjacent pairs) or neox (halves); the rest as ggml_rope_ext.

    ext_factor 1 is YaRN (Peng 2023, arXiv 2309.00071), whose attention factor ggml multiplies by
    1 + 0.1 ln(1 / freq_scale) itself.
    """

    mode: str
    n_dims: int
    freq_base: float = 10000.0
    freq_scale: float = 1.0
    n_ctx_orig: int = 0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    factors: tuple[float, ...] = ()  # that frequencies are divided by, n_dims / 2; none: as above

    def unrounded_yarn(self) -> Rope:
        """The same YaRN whose ramp begins and ends between two frequencies, where ggml rounds both."""
        n, ends = self.n_dims, []
        for beta in (self.beta_fast, self.beta_slow):
            turns = math.log(self.n_ctx_orig / (beta * 2 * math.pi))
            ends.append(n * turns / (2 * math.log(self.freq_base)))
        low, high = max(ends[0], 0.0), min(ends[1], n - 1.0)
        ramp = [min(max((i - low) / max(high - low, 0.001), 0.0), 1.0) for i in range(n // 2)]
        factors = tuple(1.0 / (1.0 - share + share * self.freq_scale) for share in ramp)
        scale = self.attn_factor * (1.0 - 0.1 * math.log(self.freq_scale))
        return replace(self, factors=factors, ext_factor=0.0, freq_scale=1.0, attn_factor=scale)


class ByLength(NamedTuple):
    """Rotary factors F32 [n_dims / 2] of sequences up to `HParams.n_short` tokens, and of longer ones."""

    short: Any
    long: Any


@dataclass(frozen=True, kw_only=True)
class HParams:
    """Hyperparameters. Heads may differ per layer; sizes are elements; 0 (of factors 1): there is none."""

    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    n_ff: tuple[int, ...]
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_dim_k: int
    head_dim_v: int
    eps: float
    rope: Rope | None = None
    rope_local: Rope | None = None  # of layers with a window, where it is another (Gemma 3)
    windows: tuple[int, ...] = ()  # per layer; a row at p sees p - window + 1 … p; 0: the whole session
    n_short: int = 0  # longer sequences have other rotary factors (LongRoPE, arXiv 2402.13753)
    max_positions: int = 0  # of a learned position table: a context cannot be longer
    causal: bool = True
    parallel: bool = False  # attention and feed-forward read the same x
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0
    n_ff_shared: int = 0
    attention_scale: float = 0.0  # 0: 1 / sqrt(head_dim_k)
    attention_softcap: float = 0.0  # cap * tanh(score / cap)
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    embedding_scale: float = 1.0
    n_token_types: int = 0
    pooling: str = "last"  # of hidden states to an embedding, see `engine.tasks.embedding`
    normalize: bool = True  # embeddings to a length of 1, where nobody says otherwise
    n_scores: int = 0  # that a head makes of the state of one token, for ranking
    max_bias: float = 0.0  # ALiBi (Press 2021, arXiv 2108.12409)
    clamp_qkv: float = 0.0

    @property
    def kq_scale(self) -> float:
        return self.attention_scale or 1.0 / math.sqrt(self.head_dim_k)

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0

    def rope_of(self, layer: int) -> Rope | None:
        return self.rope_local if self.rope_local and self.window(layer) else self.rope


class Keys:
    """Typed reads of one architecture's keys; `seen` is what a load has understood."""

    def __init__(self, gguf: Any, arch: str) -> None:
        self.gguf, self.arch = gguf, arch
        self.seen: set[str] = set()

    def key(self, name: str) -> str:
        self.seen.add(name)
        return f"{self.arch}.{name}"

    def has(self, name: str) -> bool:
        return self.key(name) in self.gguf.metadata

    def integer(self, name: str, *default: Any) -> Any:
        return self.gguf.get_int(self.key(name), *default)

    def number(self, name: str, *default: Any) -> Any:
        return self.gguf.get_float(self.key(name), *default)

    def text(self, name: str, *default: Any) -> Any:
        return self.gguf.get_str(self.key(name), *default)

    def flag(self, name: str, *default: Any) -> Any:
        return self.gguf.get_bool(self.key(name), *default)

    def per_layer(self, name: str, n_layer: int, *default: Any) -> tuple[int, ...]:
        """A number for all layers, or an array with one for each."""
        if default and not self.has(name):
            values: Iterable[int] = default[0] if isinstance(default[0], tuple) else (default[0],)
        else:
            values = self.gguf.get_ints(self.key(name))
        found = tuple(values)
        if len(found) == 1:
            found *= n_layer
        if len(found) != n_layer:
            raise ModelError(f"{self.key(name)} has {len(found)} values for {n_layer} layers")
        return found

    def hparams(self, *, rope: str | Rope | None, eps: str = "rms", **more: Any) -> HParams:
        """What nearly all read alike. rope: its mode, or all of it; eps: rms or layer; `more` goes on top.

        To be called last: keys that nobody has read until then, and that would change the graph, are refused.
        """
        n_layer, n_embd = self.integer("block_count"), self.integer("embedding_length")
        n_head = self.per_layer("attention.head_count", n_layer)
        head_dim = self.integer("attention.key_length", n_embd // max(n_head[0], 1))
        embedding = self.gguf.tensors.get("token_embd.weight")
        found = {
            "n_layer": n_layer,
            "n_embd": n_embd,
            "n_vocab": embedding.shape[1] if embedding is not None else 0,
            "n_ctx_train": self.integer("context_length"),
            "n_head": n_head,
            "n_head_kv": self.per_layer("attention.head_count_kv", n_layer, n_head),
            "head_dim_k": head_dim,
            "head_dim_v": self.integer("attention.value_length", head_dim),
            "n_expert": self.integer("expert_count", 0),
            "n_expert_used": self.integer("expert_used_count", 0),
            "n_ff_expert": self.integer("expert_feed_forward_length", 0),
            "n_ff_shared": self.integer("expert_shared_feed_forward_length", 0),
            "attention_scale": self.number("attention.scale", 0.0),
        } | more
        if "n_ff" not in found:
            found["n_ff"] = self.per_layer("feed_forward_length", n_layer)
        if "eps" not in found:
            found["eps"] = self.number(f"attention.layer_norm_{'rms_' if eps == 'rms' else ''}epsilon")
        if self.has("pooling_type"):
            number = self.integer("pooling_type")
            if not 0 <= number < len(POOLING):
                self.refuse(
                    "pooling_type", number, ", ".join(f"{i} ({name})" for i, name in enumerate(POOLING))
                )
            found["pooling"] = POOLING[number]
        if self.has("pooling_normalize"):  # ours: llama.cpp has no key for it
            found["normalize"] = self.flag("pooling_normalize")
        for name in NEUTRAL.keys() - self.seen:
            self.only(name, *NEUTRAL[name])
        if isinstance(rope, str):
            rope = self.rope(rope, self.integer("rope.dimension_count", head_dim))
        found["rope"] = rope
        return HParams(**found)

    def encoder(self, *, rope: str | None, **more: Any) -> HParams:
        """`hparams` of models whose rows see each other both ways."""
        self.only("attention.causal", False)
        types = self.gguf.tensors.get("token_types.weight")
        # Converters of before wrote a single type without the second dimension.
        n_token_types = 0 if types is None else (*types.shape, 1)[1]
        more = {"causal": False, "pooling": "mean", "n_token_types": n_token_types} | more
        more["n_scores"] = self.n_scores()
        return self.hparams(rope=rope, eps="layer", **more)

    def n_scores(self) -> int:
        """Scores of a head for ranking, 0 if there is none."""
        for name in ("cls.output.weight", "cls.weight"):
            if name in self.gguf.tensors:
                return int(self.gguf.tensors[name].shape[-1])
        return 0

    def windows(self, n_layer: int, pattern: int = 1, default: int = 0) -> tuple[int, ...]:
        """Sliding windows: `pattern` 1: all layers have it; n: every n-th layer sees everything."""
        window = self.integer("attention.sliding_window", default)
        name = "attention.sliding_window_pattern"
        kind = self.gguf.value_type(self.key(name))
        if kind is not None and kind[1] is not None:  # one flag for each layer
            flags = self.gguf.get_bools(self.key(name), n_layer)
            return tuple(window if local else 0 for local in flags)
        pattern = self.integer(name, pattern)
        return tuple(window if pattern == 1 or (i + 1) % pattern else 0 for i in range(n_layer))

    def rope(self, mode: str, n_dims: int) -> Rope:
        """Rotary parameters under the usual keys: no scaling, linear, or YaRN."""
        if n_dims < 2 or n_dims % 2:
            self.refuse("rope.dimension_count", n_dims, "even numbers")
        kind = self.text("rope.scaling.type", "linear")
        factor = self.number("rope.scaling.factor", 0.0) or self.number("rope.scale_linear", 0.0) or 1.0
        if kind not in ("none", "linear", "yarn"):
            self.refuse("rope.scaling.type", kind, "none, linear, yarn")
        if self.number("rope.scaling.yarn_log_multiplier", 0.0):
            self.refuse(
                "rope.scaling.yarn_log_multiplier", self.number("rope.scaling.yarn_log_multiplier"), "absent"
            )
        attn_factor = self.number("rope.scaling.attn_factor", 1.0)
        if kind == "yarn" and self.has("rope.scaling.yarn_attn_factor"):
            # Stated in place of YaRN's own 1 + 0.1 ln(factor), which ggml will multiply by.
            stated = self.number("rope.scaling.yarn_attn_factor")
            attn_factor *= stated / (1.0 + 0.1 * math.log(max(factor, 1.0)))
        return Rope(
            mode=mode,
            n_dims=n_dims,
            freq_base=self.number("rope.freq_base", 10000.0),
            freq_scale=1.0 if kind == "none" else 1.0 / factor,
            n_ctx_orig=self.integer("rope.scaling.original_context_length", 0)
            or self.integer("context_length"),
            ext_factor=1.0 if kind == "yarn" else 0.0,
            attn_factor=attn_factor,
            beta_fast=self.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=self.number("rope.scaling.yarn_beta_slow", 1.0),
        )

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse the file if it has this number or text and it is none of `allowed`."""
        read = {bool: self.flag, int: self.integer, float: self.number, str: self.text}[type(allowed[0])]
        if self.has(name) and (value := read(name)) not in allowed:
            self.refuse(name, value, ", ".join(map(str, allowed)))

    def refuse(self, name: str, value: Any, supported: str) -> None:
        raise UnsupportedModelError(
            f"{self.key(name)} is {value!r}, which is not supported (supported: {supported})"
        )


class Architecture(ABC):
    """Base of all architectures: `hparams` reads the file, `bind` names the tensors, `build` the graph."""

    name: ClassVar[str]

    def __init__(self, hp: HParams) -> None:
        self.hp = hp

    @classmethod
    @abstractmethod
    def hparams(cls, gguf: Any) -> HParams:
        """Read the hyperparameters. ModelError or UnsupportedModelError name the key."""

    @abstractmethod
    def bind(self, binder: Binder) -> None:
        """Name every tensor once, and keep the modules that `binder` makes of them."""

    @abstractmethod
    def build(self, step: Any) -> Any:
        """Build the graph of one batch and return its outputs, or None if it has none.

        `step` is a `ForwardContext`. Outputs are logits [n_vocab, n_outputs] or, where `step.hidden` asks,
        the states [n_embd, n_outputs] that the head would read; encoders have no others. Where
        `step.scores` asks, they are what a head for ranking makes of these, [n_scores, n_outputs].
        """
