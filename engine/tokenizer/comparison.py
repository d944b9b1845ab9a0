"""Whether two models have the same tokens, so that one can draft for the other."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.gguf import GGUFFile, printable, validate_tokenizer
from engine.tokenizer.vocab import TokenType


def check_same_tokens(model: GGUFFile, draft: GGUFFile) -> int:
    """The number of tokens that both have. Raises ConfigError, which names the first difference.

    One model may have more tokens at the end if they are unused: models of one family are padded to different
    lengths.
    """
    own, other = _tokens(model), _tokens(draft)
    n = min(len(own), len(other))
    if own[:n] != other[:n]:
        i = next(i for i in range(n) if own[i] != other[i])
        raise ConfigError(
            f"draft model {printable(draft.path)}: its token {i} is '{printable(other[i])}', the model's is "
            f"'{printable(own[i])}'; choose a draft model with the model's vocabulary"
        )
    for gguf, pieces, lacking in ((model, own, "the draft model"), (draft, other, "the model")):
        types = gguf.get_ints("tokenizer.ggml.token_type", len(pieces), None)
        for i in range(n, len(pieces)):
            if types is None or types[i] != TokenType.UNUSED:
                raise ConfigError(
                    f"draft model {printable(draft.path)}: {lacking} has no token {i} "
                    f"('{printable(pieces[i])}'); choose a draft model with the model's vocabulary"
                )
    return n


def _tokens(gguf: GGUFFile) -> list[str]:
    if not validate_tokenizer(gguf):
        gguf.fail("has no vocabulary, by which a draft model is compared")
    return gguf.get_strs("tokenizer.ggml.tokens")
