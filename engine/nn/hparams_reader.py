"""Reads a model's hyperparameters from the keys of its GGUF file.

A value that the graph does not implement is refused here, when the model is loaded, by the name of its key.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.gguf.access import REQUIRED
from engine.hparams import POOLING, HParams, Recurrence, Rope, RopeMode, Routing, RoutingWeights

Scalar = bool | int | float | str

# Keys that change the graph of any architecture that reads them, and the values with which nothing changes.
NEUTRAL: dict[str, tuple[Scalar, ...]] = {
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
    "expert_group_count": (0, 1),
    "expert_gating_func": (0, 1),
}


# What the numbers of `expert_gating_func` mean; 0: the file does not say.
GATING: tuple[Literal["", "softmax", "sigmoid", "selected"], ...] = ("", "softmax", "sigmoid", "selected")


class HParamsReader:
    """Typed reads of one architecture's keys. Without a default, a missing key is a ModelError.

    seen: the keys that were read; see `hparams`.
    """

    def __init__(self, gguf: GGUFFile, architecture: str) -> None:
        self.gguf, self.architecture = gguf, architecture
        self.seen: set[str] = set()

    def key(self, name: str) -> str:
        self.seen.add(name)
        return f"{self.architecture}.{name}"

    def has(self, name: str) -> bool:
        return self.key(name) in self.gguf.metadata

    def integer(self, name: str, default: int = REQUIRED) -> int:
        return self.gguf.get_int(self.key(name), default)

    def number(self, name: str, default: float = REQUIRED) -> float:
        return self.gguf.get_float(self.key(name), default)

    def text(self, name: str, default: str = REQUIRED) -> str:
        return self.gguf.get_str(self.key(name), default)

    def flag(self, name: str, default: bool = REQUIRED) -> bool:
        return self.gguf.get_bool(self.key(name), default)

    def per_layer(self, name: str, n_layer: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """One value per layer, from an array in the file or one number for all layers."""
        if default is not None and not self.has(name):
            return default
        values = tuple(self.gguf.get_ints(self.key(name)))
        if len(values) == 1:
            values *= n_layer
        if len(values) == n_layer + self.integer("nextn_predict_layers", 0):
            values = values[:n_layer]
        if len(values) != n_layer:
            raise ModelError(f"{self.key(name)} has {len(values)} values for {n_layer} layers")
        return values

    def cutoffs(self, name: str, n_layer: int) -> tuple[float | None, ...]:
        """A number per layer; None where the file has minus infinity."""
        values = self.gguf.metadata.get(self.key(name))
        if not isinstance(values, list) or len(values) != n_layer:
            raise ModelError(f"{self.key(name)} must have one number for each of {n_layer} layers")
        numbers = [value for value in values if isinstance(value, float) and value < math.inf]
        if len(numbers) < n_layer:
            raise ModelError(f"{self.key(name)} has a value that is not finite")
        return tuple(value if math.isfinite(value) else None for value in numbers)

    def n_layer(self) -> int:
        """The number of layers, without those that only predict further tokens (MTP), which come last."""
        n_mtp = self.integer("nextn_predict_layers", 0)
        n_layer = self.integer("block_count") - n_mtp
        if n_layer < 1:
            self.refuse("nextn_predict_layers", n_mtp, "fewer than block_count")
        return n_layer

    def head_dim(self) -> int:
        """Elements of a head of Q and K: as stated in the file, else an equal share of the embedding."""
        n_head = self.per_layer("attention.head_count", self.n_layer())
        return self.integer("attention.key_length", self.integer("embedding_length") // max(*n_head, 1))

    def hparams(self, *, rope: RopeMode | Rope | None, eps: str = "rms", **fields: Any) -> HParams:
        """The hyperparameters under the usual keys. `fields` of `HParams` take precedence.

        rope: its mode, for a rotary embedding under the usual keys. eps: "rms" or "layer", the kind of norm.
        To be called last: it refuses keys that would change the graph (NEUTRAL) and were not read until then.
        """
        n_layer, n_embd = self.n_layer(), self.integer("embedding_length")
        n_ff_expert = self.integer("expert_feed_forward_length", 0)
        n_head, head_dim = self.per_layer("attention.head_count", n_layer), self.head_dim()
        embedding = self.gguf.tensors.get("token_embd.weight")
        merged: dict[str, Any] = {
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
            "n_mtp": self.integer("nextn_predict_layers", 0),
            "n_ff_expert": n_ff_expert,
            "n_ff_shared": self.integer("expert_shared_feed_forward_length", 0)
            or n_ff_expert * self.integer("expert_shared_count", 0),
            "attention_scale": self.number("attention.scale", 0.0),
        } | fields
        if sources := merged.get("kv_sources"):  # layers that read others' keys and values have none
            merged["n_head_kv"] = tuple(
                n if sources[i] == i else 0 for i, n in enumerate(merged["n_head_kv"])
            )
        if "n_ff" not in merged:
            merged["n_ff"] = self.per_layer("feed_forward_length", n_layer)
        if "eps" not in merged:
            merged["eps"] = self.number(f"attention.layer_norm_{'rms_' if eps == 'rms' else ''}epsilon")
        if self.has("pooling_type"):
            number = self.integer("pooling_type")
            if not 0 <= number < len(POOLING):
                supported = ", ".join(f"{i} ({name})" for i, name in enumerate(POOLING))
                self.refuse("pooling_type", number, supported)
            merged["pooling"] = POOLING[number]
        if self.has("pooling_normalize"):  # our own key; llama.cpp has none
            merged["normalize"] = self.flag("pooling_normalize")
        for name in NEUTRAL.keys() - self.seen:
            self.only(name, *NEUTRAL[name])
        if isinstance(rope, str):
            rope = self.rope(rope, self.integer("rope.dimension_count", head_dim))
        return HParams(rope=rope, **merged)

    def routing(self, weights: RoutingWeights = "softmax", *, renormalise: bool = False) -> Routing:
        """How experts are chosen, under the usual keys. weights, renormalise: defaults for files without the
        key.
        """
        number = self.integer("expert_gating_func", 0)
        if not 0 <= number < len(GATING):
            self.refuse("expert_gating_func", number, ", ".join(f"{i} ({n})" for i, n in enumerate(GATING)))
        groups = max(self.integer("expert_group_count", 1), 1)
        used = self.integer("expert_group_used_count", 1) if groups > 1 else 1
        n_expert = self.integer("expert_count", 0)
        if groups > 1 and (n_expert % groups or n_expert // groups < 2 or not 0 < used <= groups):
            self.refuse("expert_group_count", groups, f"divisors of {n_expert} experts, {used} of them used")
        weights = GATING[number] or weights
        return Routing(
            weights=weights,
            renormalise=self.flag("expert_weights_norm", renormalise),
            scale=self.number("expert_weights_scale", 0.0) or 1.0,
            n_groups=groups,
            n_groups_used=used,
            judged_by=2 if weights == "sigmoid" else 1,
        )

    def encoder(self, *, rope: RopeMode | None, **fields: Any) -> HParams:
        """The hyperparameters of a model with bidirectional attention. `fields` as in `hparams`."""
        self.only("attention.causal", False)
        types = self.gguf.tensors.get("token_types.weight")
        return self.hparams(
            rope=rope,
            eps="layer",
            causal=False,
            pooling="mean",
            # Old converters wrote a single type as a vector.
            n_token_types=0 if types is None else (*types.shape, 1)[1],
            n_scores=self.n_scores(),
            **fields,
        )

    def n_scores(self) -> int:
        """Outputs of the classification head, 0 without one."""
        for name in ("cls.output.weight", "cls.weight"):
            if name in self.gguf.tensors:
                return self.gguf.tensors[name].shape[-1]
        return 0

    def kernel(self, name: str) -> int:
        """The length of a causal convolution."""
        kernel = self.integer(name)
        if not 2 <= kernel <= 8:
            self.refuse(name, kernel, "2 to 8")
        return kernel

    def ssm(self) -> Recurrence:
        """The state of Mamba 2 and similar models: a convolution over x, B and C, and a scan."""
        n_inner, d_state = self.integer("ssm.inner_size"), self.integer("ssm.state_size")
        n_head, n_group = self.integer("ssm.time_step_rank"), self.integer("ssm.group_count")
        if d_state > 1024:  # what a kernel has room for
            self.refuse("ssm.state_size", d_state, "up to 1024")
        if min(n_inner, d_state, n_head, n_group) < 1 or n_inner % n_head or n_head % n_group:
            raise ModelError(
                f"{self.architecture}: ssm.inner_size {n_inner}, ssm.state_size {d_state}, "
                f"ssm.time_step_rank {n_head} and ssm.group_count {n_group} do not fit together"
            )
        return Recurrence(
            kernel=self.kernel("ssm.conv_kernel"),
            channels=n_inner + 2 * n_group * d_state,
            n_head=n_head,
            head_dim=n_inner // n_head,
            d_state=d_state,
            n_group=n_group,
        )

    def ssm_of_channels(self) -> Recurrence:
        """The state of Mamba, in which each channel is a head of its own, and all share B and C."""
        n_inner = self.integer("ssm.inner_size")
        d_state, dt_rank = self.integer("ssm.state_size"), self.integer("ssm.time_step_rank")
        if min(n_inner, d_state, dt_rank) < 1:
            raise ModelError(f"{self.architecture}: a size of the state space is below 1")
        return Recurrence(
            kernel=self.kernel("ssm.conv_kernel"),
            channels=n_inner,
            n_head=n_inner,
            head_dim=1,
            d_state=d_state,
            dt_rank=dt_rank,
            normed=self.flag("ssm.dt_b_c_rms", False),
        )

    def linear_attention(self, n_layer: int, interval: int) -> tuple[bool, ...]:
        """For each layer, whether it has a state instead of attention: as stated in the file, else all but
        every n-th, where n is `interval` or the file's value.
        """
        name = "attention.recurrent_layers"
        if self.has(name):
            flags = self.gguf.get_bools(self.key(name), self.integer("block_count"))
            return tuple(flags[:n_layer])
        interval = self.integer("full_attention_interval", interval)
        if interval < 1:
            self.refuse("full_attention_interval", interval, "1 and more")
        return tuple(bool((i + 1) % interval) for i in range(n_layer))

    def windows(
        self, n_layer: int, pattern: int = 1, default: int = 0, *, full_first: bool = False
    ) -> tuple[int, ...]:
        """The sliding window of each layer. pattern 1: all layers have it; n: all but every n-th.

        full_first: the first of n layers has full attention, instead of the last.
        """
        window = self.integer("attention.sliding_window", default)
        name = "attention.sliding_window_pattern"
        kind = self.gguf.value_type(self.key(name))
        if kind is not None and kind[1] is not None:  # one flag for each layer
            flags = self.gguf.get_bools(self.key(name), n_layer)
            return tuple(window if local else 0 for local in flags)
        pattern = self.integer(name, pattern)
        shift = 0 if full_first else 1
        return tuple(window if pattern == 1 or (i + shift) % pattern else 0 for i in range(n_layer))

    def kv_sources(self, windows: tuple[int, ...], default: int = REQUIRED) -> tuple[int, ...]:
        """The last `attention.shared_kv_layers` read the last other one with, or without, a window."""
        name, n = "attention.shared_kv_layers", len(windows)
        n_shared = self.integer(name, default)
        last = {windows[i] > 0: i for i in range(n - n_shared)} if 0 <= n_shared < n else {}
        if not last.keys() >= {w > 0 for w in windows}:
            raise ModelError(
                f"{self.key(name)} is {n_shared}, which leaves layers of {n} without keys and values to read"
            )
        return tuple(i if i < n - n_shared else last[w > 0] for i, w in enumerate(windows))

    def long_rope(self) -> int:
        """The length up to which LongRoPE's short factors apply; 0: the file has none."""
        if "rope_factors_long.weight" not in self.gguf.tensors:
            return 0
        return self.integer("rope.scaling.original_context_length", 0) or self.integer("context_length")

    def rope(self, mode: RopeMode, n_dims: int, *, scales_scores: bool = False) -> Rope:
        """RoPE under the usual keys: unscaled, linear, or YaRN.

        scales_scores: the caller implements `yarn_log_multiplier`, with which YaRN scales attention's scores
        instead of Q and K (DeepSeek-V2).
        """
        if n_dims < 2 or n_dims % 2:
            self.refuse("rope.dimension_count", n_dims, "even numbers")
        kind = self.text("rope.scaling.type", "linear")
        factor = self.number("rope.scaling.factor", 0.0) or self.number("rope.scale_linear", 0.0) or 1.0
        if kind == "longrope" and self.long_rope():
            kind = "none"
        if kind not in ("none", "linear", "yarn"):
            self.refuse("rope.scaling.type", kind, "none, linear, yarn")
        attn_factor = self.number("rope.scaling.attn_factor", 1.0)
        if multiplier := self.number("rope.scaling.yarn_log_multiplier", 0.0):
            if not scales_scores:
                self.refuse("rope.scaling.yarn_log_multiplier", multiplier, "absent")
            attn_factor /= 1.0 + 0.1 * math.log(max(factor, 1.0)) * (kind == "yarn")
        if kind == "yarn" and self.has("rope.scaling.yarn_attn_factor"):
            # It replaces YaRN's own 1 + 0.1 ln(factor), by which ggml multiplies.
            replacement = self.number("rope.scaling.yarn_attn_factor")
            attn_factor *= replacement / (1.0 + 0.1 * math.log(max(factor, 1.0)))
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

    def temperature(self, rope: Rope, default: float = 0.0) -> dict[str, Any]:
        """The fields of `HParams` by which scores grow with the position. default: of files with YaRN that
        do not say."""
        scale = self.number("attention.temperature_scale", default * rope.ext_factor)
        length = self.integer("attention.temperature_length", rope.n_ctx_orig)
        return {"temperature_scale": scale, "temperature_length": length} if scale else {}

    def only(self, name: str, *supported: Scalar) -> None:
        """Refuse the file if it has this key with another value.

        The first of `supported` determines the type.
        """
        if not self.has(name):
            return
        value: Scalar
        match supported[0]:
            case bool():
                value = self.flag(name)
            case int():
                value = self.integer(name)
            case float():
                value = self.number(name)
            case _:
                value = self.text(name)
        if value not in supported:
            self.refuse(name, value, ", ".join(map(str, supported)))

    def refuse(self, name: str, value: Scalar, supported: str) -> None:
        """Raises UnsupportedModelError, which names the key, its value, and what is supported."""
        raise UnsupportedModelError(
            f"{self.key(name)} is {value!r}, which is not supported (supported: {supported})"
        )
