"""InternLM 2 and 2.5: as LLaMA (arXiv 2403.17297). The checkpoints differ; see the converter."""

from engine.architectures.llama import Llama


class InternLM2(Llama):
    name = "internlm2"
