"""Mistral Small 4 (text): as DeepSeek V2, with scores that grow with the position (arXiv 2601.08584).

Files written by llama.cpp's converter do not state how fast they grow; in all published models it is 0.1.
"""

from dataclasses import replace

from engine.architectures.deepseek2 import DeepSeek2
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader


class Mistral4(DeepSeek2):
    name = "mistral4"
    temperature_scale = 0.10000000149011612  # in float32, as files that say it have it

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        hp = super().read(reader)
        return replace(hp, routing=replace(hp.routing, judged_by=2))
