"""StableLM 2 and StableLM-3B: LayerNorms, partial RoPE, SwiGLU (arXiv 2402.17834).

The 12B norms Q and K per head, with separate weights for each head, and has parallel blocks on one norm.
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader


class StableLM(Decoder):
    name = "stablelm"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        # The key is there and says nothing: what counts is whether there is a second norm.
        parallel = "blk.0.ffn_norm.weight" not in reader.gguf.tensors
        return reader.hparams(rope="neox", eps="layer", parallel=parallel)

    def layer(self, binder: Binder, i: int) -> Layer:
        hp = self.hp
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            parallel=hp.parallel,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, hp, i, qk_norm="head" if qk_norm else None, norm=self.norm, norm_per_head=True
            ),
            ffn_norm=None if hp.parallel else self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, hp, i),
        )
