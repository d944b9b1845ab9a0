"""Llama 4: as LLaMA with chunked attention; every fourth layer has full attention and no RoPE.

In these layers, scores grow with the position (arXiv 2501.19399). One expert per row reads the row scaled by
its sigmoid. In published files, no key states the chunks or the growth.
"""

from typing import Any

from engine.architectures.llama import Llama
from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader
from engine.nn.layers import Norm, RMSNorm
from engine.nn.moe import MixtureOfExperts

CHUNK, WHOLE_EACH = 8192, 4
EXPERTS_WITHOUT_NORMS = 128  # Maverick does not norm Q and K


class Llama4(Llama):
    name = "llama4"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        windows = reader.windows(reader.n_layer(), WHOLE_EACH, CHUNK)
        more: dict[str, Any] = {}
        if any(windows):
            more = {"windows": windows, "chunked": True, "unrotated": tuple(not w for w in windows)}
            more["temperature_scale"] = reader.number("attention.temperature_scale", 0.1)
            more["temperature_length"] = reader.integer("attention.temperature_length", CHUNK)
            more["temperature_offset"] = 1
        n_ff_shared = reader.integer("expert_feed_forward_length", 0)
        step = reader.integer("interleave_moe_layer_step", 1)
        routing = reader.routing("sigmoid")
        return reader.hparams(
            rope="interleaved", n_ff_shared=n_ff_shared, experts_each=step, routing=routing, **more
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        normed = self.hp.n_expert != EXPERTS_WITHOUT_NORMS and self.hp.rope_of(i) is not None
        norms: Any = {"qk_norm": "head", "norm": self.plain_norm, "rotate_first": True} if normed else {}
        return Attention(binder, self.hp, i, rope_factors=self.factors, **norms)

    def plain_norm(self, binder: Binder, name: str, shape: tuple[int, ...], layer: int) -> Norm:
        return RMSNorm(None, self.hp.eps)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if not self.hp.n_expert or (i + 1) % self.hp.experts_each:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=True, gated=False, weighs_input=True)
