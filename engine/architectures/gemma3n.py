"""Gemma 3n (text): Gemma 4's E2B and E4B, with parallel residual streams and a low-rank block.

(AltUp, arXiv 2301.13310; LAuReL, arXiv 2411.07501.) The gates of the first layers are sparse.
"""

import math
from typing import Any

from engine.hparams import HParams, Rope
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.hparams_reader import HParamsReader
from engine.nn.residual.altup import AugmentedDecoder, AugmentedLayer


class Gemma3n(AugmentedDecoder):
    name = "gemma3n"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        n, dim = reader.integer("block_count"), reader.head_dim()
        windows, n_embd = reader.windows(n, pattern=5), reader.integer("embedding_length")
        reader.only("altup.active_idx", 0)
        cutoffs = reader.cutoffs("activation_sparsity_scale", n)
        n_per_layer = reader.integer("embedding_length_per_layer_input")
        if not n_per_layer:
            reader.refuse("embedding_length_per_layer_input", n_per_layer, "1 or more")
        low_rank = reader.gguf.tensors.get("blk.0.laurel_l.weight")
        return reader.hparams(
            rope="neox",
            rope_local=Rope(mode="neox", n_dims=dim, freq_base=reader.number("rope.freq_base_swa", 10000.0)),
            embedding_scale=math.sqrt(n_embd),
            windows=windows,
            kv_sources=reader.kv_sources(windows),
            n_per_layer=n_per_layer,
            n_streams=reader.integer("altup.num_inputs"),
            n_low_rank=0 if low_rank is None else low_rank.shape[-1],
            gate_cutoffs=cutoffs,
            attention_scale=1.0,
            logit_softcap=reader.number("final_logit_softcapping", 0.0),
        )

    def layer(self, binder: Binder, i: int) -> Any:
        attention = Attention(binder, self.hp, i, qk_norm="head", norm=self.norm, norm_values=True)
        source = self.hp.kv_sources[i]
        if source != i:  # published files have what computes keys and values, and nothing reads it
            width = self.hp.head_dim_k * self.hp.n_head_kv[source]
            for name in ("attn_k", "attn_v"):
                binder.optional(f"blk.{i}.{name}.weight", (self.hp.n_embd, width), "mul_mat", i)
            binder.optional(f"blk.{i}.attn_k_norm.weight", (self.hp.head_dim_k,), "mul", i)
        assert self.again is not None
        return AugmentedLayer.bind(binder, self.hp, i, attention, self.again)
