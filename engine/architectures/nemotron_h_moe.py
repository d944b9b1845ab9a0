"""Nemotron 3: as Nemotron-H, with experts of squared ReLU in some layers, chosen by biased sigmoids.

One expert is shared by all rows. In Super, the others read and return narrower rows.
"""

from engine.architectures.nemotron_h import NemotronH
from engine.hparams import Routing
from engine.nn.binder import Binder
from engine.nn.decoder import Mixer
from engine.nn.hparams_reader import HParamsReader
from engine.nn.moe import MixtureOfExperts
from engine.nn.recurrent import Stateless


class NemotronHMoE(NemotronH):
    name = "nemotron_h_moe"

    @classmethod
    def experts(cls, reader: HParamsReader) -> dict[str, int | Routing]:
        return {"n_embd_expert": reader.integer("moe_latent_size", 0), "routing": reader.routing("sigmoid")}

    def mixer(self, binder: Binder, i: int) -> Mixer:
        if not binder.has(f"blk.{i}.ffn_gate_inp.weight"):
            return super().mixer(binder, i)
        experts = MixtureOfExperts(
            binder, self.hp, i, activation="relu_squared", shared=True, gated=False, plain=True
        )
        return Stateless(experts, i)
