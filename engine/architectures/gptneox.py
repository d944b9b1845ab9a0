"""GPT-NeoX, Pythia, Dolly, RedPajama, StableLM-alpha: two norms, both on x if the residual is parallel.

Partial RoPE, GELU, biases everywhere (Black 2022, arXiv 2204.06745).
"""

from engine.hparams import HParams
from engine.nn.attention import Attention
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.feed_forward import FeedForward
from engine.nn.hparams_reader import HParamsReader

LAYERS_OF_20B = 44  # its GELU is the form by tanh, and no key says so


class GPTNeoX(Decoder):
    name = "gptneox"
    norms = "layer"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return reader.hparams(rope="neox", eps="layer", parallel=reader.flag("use_parallel_residual", True))

    def layer(self, binder: Binder, i: int) -> Layer:
        activation = "gelu" if self.hp.n_layer == LAYERS_OF_20B else "gelu_erf"
        return Layer(
            parallel=self.hp.parallel,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=FeedForward(binder, self.hp, i, activation=activation, gate=None),
        )
