"""DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash: latent attention, experts after dense layers.

(arXiv 2405.04434 and 2412.19437.) Experts are chosen within groups, by softmax (V2) or biased sigmoids.
"""

import math
from typing import ClassVar

from engine.architectures.glm4moe import GLM4MoE
from engine.errors import UnsupportedModelError
from engine.hparams import HParams, Latent
from engine.nn.binder import Binder
from engine.nn.decoder import Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.latent_attention import LatentAttention


class DeepSeek2(GLM4MoE):
    name = "deepseek2"
    ffn_norm = "ffn_norm"
    temperature_scale: ClassVar[float] = 0.0  # of files without the key

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        if "blk.0.attn_kv_b.weight" in reader.gguf.tensors:
            raise UnsupportedModelError(
                f"{reader.gguf.path}: attn_kv_b is one tensor, as converters wrote it until April 2025; "
                "download or convert the model again, so that it has attn_k_b and attn_v_b"
            )
        rank, n_rot = reader.integer("attention.kv_lora_rank"), reader.integer("rope.dimension_count")
        reader.only("attention.key_length", rank + n_rot)
        reader.only("attention.value_length", rank)
        latent = Latent(
            head_dim_k=reader.integer("attention.key_length_mla"),
            head_dim_v=reader.integer("attention.value_length_mla"),
            q_rank=reader.integer("attention.q_lora_rank", 0),
        )
        rope = reader.rope("interleaved", n_rot, scales_scores=True)
        multiplier = reader.number("rope.scaling.yarn_log_multiplier", 0.0) * rope.ext_factor
        temperature = 1.0 - multiplier * math.log(rope.freq_scale)
        n_layer = reader.n_layer()
        is_biased = f"blk.{n_layer - 1}.exp_probs_b.bias" in reader.gguf.tensors
        return reader.hparams(
            rope=rope,
            latent=latent,
            head_dim_k=rank + n_rot,
            head_dim_v=rank,
            n_head_kv=(1,) * n_layer,
            attention_scale=temperature**2 / math.sqrt(latent.head_dim_k),
            n_dense=reader.integer("leading_dense_block_count", 0),
            routing=reader.routing("sigmoid" if is_biased else "softmax"),
            **reader.temperature(rope, cls.temperature_scale),
        )

    def attention(self, binder: Binder, i: int) -> Mixer:
        return LatentAttention(binder, self.hp, i)
