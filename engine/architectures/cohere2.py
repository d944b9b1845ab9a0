"""Command-R7B and Command-A: as Command-R; three of four layers have windows and RoPE, the others neither."""

from engine.architectures.command_r import CommandR
from engine.hparams import HParams
from engine.nn.hparams_reader import HParamsReader

FULL_EACH = 4  # layers without a window, in files without the pattern


class Cohere2(CommandR):
    name = "cohere2"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        windows = reader.windows(reader.integer("block_count"), pattern=FULL_EACH)
        return reader.hparams(
            rope="interleaved",
            eps="layer",
            windows=windows,
            unrotated=tuple(window == 0 for window in windows),
            logit_scale=reader.number("logit_scale", 1.0) or 1.0,
        )
