"""Llama 4: as LLaMA with chunked attention; every fourth layer has full attention and no RoPE.

In these layers, scores grow with the position (arXiv 2501.19399). One expert per row reads the row scaled by
its sigmoid. In published files, no key states the chunks or the growth.
"""

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
        chunked = any(windows)
        return reader.hparams(
            rope="interleaved",
            windows=windows if chunked else (),
            chunked=chunked,
            unrotated=tuple(not window for window in windows) if chunked else (),
            temperature_scale=reader.number("attention.temperature_scale", 0.1) if chunked else 0.0,
            temperature_length=reader.integer("attention.temperature_length", CHUNK) if chunked else 0,
            temperature_offset=int(chunked),
            n_ff_shared=reader.integer("expert_feed_forward_length", 0),
            experts_each=reader.integer("interleave_moe_layer_step", 1),
            routing=reader.routing("sigmoid"),
        )

    def attention(self, binder: Binder, i: int) -> Attention:
        if self.hp.n_expert == EXPERTS_WITHOUT_NORMS or self.hp.rope_of(i) is None:
            return Attention(binder, self.hp, i, rope_factors=self.factors)
        return Attention(
            binder,
            self.hp,
            i,
            qk_norm="head",
            norm=self.plain_norm,
            rotate_first=True,
            rope_factors=self.factors,
        )

    def plain_norm(self, binder: Binder, name: str, shape: tuple[int, ...], layer: int) -> Norm:
        return RMSNorm(None, self.hp.eps)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        if not self.hp.n_expert or (i + 1) % self.hp.experts_each:
            return FeedForward(binder, self.hp, i)
        return MixtureOfExperts(binder, self.hp, i, shared=True, gated=False, weighs_input=True)
