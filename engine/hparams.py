"""Hyperparameters: the shape of a model, as needed by the cache, the graph and the layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

POOLING = ("none", "mean", "cls", "last", "rank")  # in the order of GGUF's `pooling_type` numbers
RopeMode = Literal["neox", "interleaved"]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Parameters of a rotary embedding (Su 2021, arXiv 2104.09864), as `ggml_rope_ext` takes them.

    mode: "neox" rotates x[i] with x[i + n_dims / 2] (GPT-NeoX), "interleaved" x[2i] with x[2i + 1] (GPT-J).
    ext_factor 1 is YaRN (Peng 2023, arXiv 2309.00071), whose attention factor ggml multiplies by
    1 + 0.1 ln(1 / freq_scale) itself.
    """

    mode: RopeMode
    n_dims: int
    freq_base: float = 10000.0
    freq_scale: float = 1.0
    n_ctx_orig: int = 0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    factors: tuple[float, ...] = ()  # n_dims / 2 divisors of the frequencies; empty: none

    def unrounded_yarn(self) -> Rope:
        """YaRN with the exact ends of its ramp, as explicit factors; ggml rounds them to whole dimensions."""
        n, ends = self.n_dims, []
        for beta in (self.beta_fast, self.beta_slow):
            turns = math.log(self.n_ctx_orig / (beta * 2 * math.pi))
            ends.append(n * turns / (2 * math.log(self.freq_base)))
        low, high = max(ends[0], 0.0), min(ends[1], n - 1.0)
        ramp = [min(max((i - low) / max(high - low, 0.001), 0.0), 1.0) for i in range(n // 2)]
        factors = tuple(1.0 / (1.0 - share + share * self.freq_scale) for share in ramp)
        scale = self.attn_factor * (1.0 - 0.1 * math.log(self.freq_scale))
        return replace(self, factors=factors, ext_factor=0.0, freq_scale=1.0, attn_factor=scale)


RoutingWeights = Literal["softmax", "sigmoid", "selected", "sparsemixer"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How a router chooses experts, and weights what they return.

    weights: "softmax" of the scores of all experts, "sigmoid" of each score, or "selected", the softmax of
    the selected scores. renormalise: the weights are divided by their sum. scale: they are multiplied by it.
    n_groups: experts are chosen within the n_groups_used best groups only, each judged by the sum of its
    `judged_by` best experts (DeepSeek-V2 and V3, arXiv 2405.04434 and 2412.19437). "sparsemixer" (of two
    experts): each weight is a softmax over the scores that are hardly less than that of its expert, without
    those of better experts (arXiv 2409.12136).
    """

    weights: RoutingWeights = "softmax"
    renormalise: bool = True
    scale: float = 1.0
    n_groups: int = 1
    n_groups_used: int = 1
    judged_by: int = 1


@dataclass(frozen=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), computed on the cached latents themselves.

    A cell holds one row of head_dim_k elements for all heads: the latent (head_dim_v) and the rotated part
    (rope.n_dims) of the keys; its values are the latent. `HParams` has these sizes, this class those of a
    head's K (with the rotated part) and V, which are never computed. q_rank: of Q's own latent; 0: none.
    """

    head_dim_k: int
    head_dim_v: int
    q_rank: int = 0


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """What recurrent layers carry from token to token, in float32.

    kernel, channels: of a causal convolution, which keeps its last kernel - 1 inputs. n_head, head_dim,
    d_state: of a scan, which keeps d_state numbers for each of the n_head * head_dim elements of a row.
    n_group: heads of its keys (B and C of Mamba). dt_rank: width of what Mamba's time steps are computed
    from. normed: whether Mamba norms it, B and C.
    """

    kernel: int
    channels: int
    n_head: int = 0
    head_dim: int = 0
    d_state: int = 0
    n_group: int = 1
    dt_rank: int = 0
    normed: bool = False

    @property
    def n_inner(self) -> int:
        return self.n_head * self.head_dim

    @property
    def size(self) -> int:
        """Elements of one layer's state: the convolution's inputs, then the scan's numbers."""
        return (self.kernel - 1) * self.channels + self.n_inner * self.d_state


@dataclass(frozen=True, kw_only=True)
class HParams:
    """The hyperparameters of a model, read from its file by its architecture.

    Tuples have one value per layer; sizes are in elements. 0 (1 for factors) means that the model does not
    have it.
    """

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
    rope_local: Rope | None = None  # of layers with a window, where it differs (Gemma 3)
    # Per layer: a row at p attends to p - window + 1 … p, without causality from p - window / 2 to
    # p + window / 2; 0: to all.
    windows: tuple[int, ...] = ()
    chunked: bool = False  # windows begin anew at each multiple of their size (Llama 4)
    # Longer sequences use LongRoPE's long factors (arXiv 2402.13753).
    original_context_length: int = 0
    max_positions: int = 0  # rows of the learned position table; a context cannot be longer
    causal: bool = True
    unrotated: tuple[bool, ...] = ()  # per layer: without the rotary embedding (NoPE, arXiv 2501.18795)
    parallel: bool = False  # attention and feed-forward both read the layer's input
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_expert: int = 0
    n_ff_shared: int = 0
    n_embd_expert: int = 0  # width of the rows that experts read and return, where it is not n_embd
    n_dense: int = 0  # the leading layers that have no experts
    experts_each: int = 1  # only every so many layers have experts
    n_mtp: int = 0  # layers behind the last that predict further tokens; they are not loaded
    routing: Routing = Routing()
    attention_scale: float = 0.0  # 0: 1 / sqrt(head_dim_k)
    # The scores of a row at p are multiplied by 1 + scale * ln(1 + floor((p + offset) / length)), where there
    # are layers without a rotary embedding only in these (Llama 4, Ministral 3).
    temperature_scale: float = 0.0
    temperature_length: int = 0
    temperature_offset: int = 0
    attention_softcap: float = 0.0  # cap * tanh(score / cap)
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0  # of what a block adds to its input
    n_token_types: int = 0
    head_dims: tuple[int, ...] = ()  # per layer, of K and V, where layers differ (Gemma 4)
    kv_sources: tuple[int, ...] = ()  # per layer, the one whose keys and values it reads (Gemma 4)
    n_per_layer: int = 0  # width of what each layer reads of each token again (Gemma 4)
    n_streams: int = 1  # residual streams beside each other (Gemma 3n)
    n_low_rank: int = 0  # rank of a block beside the attention (Gemma 3n)
    # Per layer, how many standard deviations above the mean a gate must be to count; None: any (Gemma 3n).
    gate_cutoffs: tuple[float | None, ...] = ()
    n_between: int = 0  # width between the two matrices behind an embedding model (EmbeddingGemma)
    pooling: str = "last"  # of hidden states to one embedding; one of POOLING
    normalize: bool = True  # embeddings are scaled to a length of 1 by default
    n_scores: int = 0  # outputs of a classification head, for ranking
    max_bias: float = 0.0  # ALiBi (Press 2021, arXiv 2108.12409)
    clamp_qkv: float = 0.0
    xielu: tuple[tuple[float, float, float, float], ...] = ()  # per layer: alpha_n, alpha_p, beta, eps
    latent: Latent | None = None  # then a cell's values are the first part of its keys
    recurrence: Recurrence | None = None
    recurrent: tuple[bool, ...] = ()  # per layer, whether it has a recurrent state

    def state_size(self, layer: int) -> int:
        """Elements of the recurrent state of a layer."""
        return self.recurrence.size if self.recurrence and self.recurrent[layer] else 0

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent states of one sequence."""
        return 4 * sum(map(self.state_size, range(self.n_layer)))

    def attends(self, layer: int) -> bool:
        """Whether a layer has keys and values."""
        return self.n_head_kv[layer] > 0

    def dims(self, layer: int) -> tuple[int, int]:
        """Elements of a head of K and of V."""
        return (self.head_dims[layer],) * 2 if self.head_dims else (self.head_dim_k, self.head_dim_v)

    def kv_source(self, layer: int) -> int:
        """The layer whose keys and values a layer reads."""
        return self.kv_sources[layer] if self.kv_sources else layer

    @property
    def kq_scale(self) -> float:
        return self.attention_scale or 1.0 / math.sqrt(self.head_dim_k)

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0

    def keeps_window(self, layer: int) -> bool:
        """Whether a layer's cached rows are only ever read within windows."""
        readers = (i for i in range(self.n_layer) if self.kv_source(i) == layer)
        return self.causal and self.attends(layer) and all(map(self.window, readers))

    @property
    def cache_window(self) -> int:
        """The largest window of the layers that cache only a window; 0: there are none."""
        return max((self.window(i) for i in range(self.n_layer) if self.keeps_window(i)), default=0)

    def has_temperature(self, layer: int) -> bool:
        return bool(self.temperature_scale) and (not self.unrotated or self.unrotated[layer])

    def rope_of(self, layer: int) -> Rope | None:
        if self.unrotated and self.unrotated[layer]:
            return None
        return self.rope_local if self.rope_local and self.window(layer) else self.rope
