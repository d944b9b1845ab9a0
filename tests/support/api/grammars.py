"""Whether a grammar takes a text, with the markers of the formats as text or as control tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from support.api.tools import FORMATS

MARKERS = sorted(
    {marker for call_format in FORMATS.values() for marker in call_format.markers if len(marker) > 1}
)
FIRST = 257  # the id of the first marker


class Vocabulary:
    """Bytes, an end, and the markers, which are control tokens or text in one piece."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256

    def __init__(self, control: bool) -> None:
        self.tokens = [*(bytes((i,)) for i in range(256)), b"<eos>", *(marker.encode() for marker in MARKERS)]
        self.special_token_ids = [256, *(range(FIRST, len(self.tokens)) if control else ())]


@cache
def tokenizer(control: bool) -> LLTokenizer:
    vocabulary: Any = Vocabulary(control)
    return LLTokenizer(vocabulary, n_vocab=len(vocabulary.tokens))


MARKER_IDS = {marker: FIRST + i for i, marker in enumerate(MARKERS)}


def encode(text: str, pieces: bool) -> list[int]:
    """Token ids: the markers as one token each, or all of it as bytes."""
    ids: list[int] = []
    while text:
        marker = next(
            (marker for marker in sorted(MARKERS, key=len, reverse=True) if text.startswith(marker)), None
        )
        if marker is not None and pieces:
            ids.append(MARKER_IDS[marker])
            text = text[len(marker) :]
        else:
            ids += text[0].encode()
            text = text[1:]
    return ids


def matches(grammar: str, text: str, control: bool, pieces: bool = True) -> tuple[bool, bool]:
    """Whether the grammar takes the text, and whether it may end there."""
    matcher = LLMatcher(tokenizer(control), grammar + '\n%llguidance {"no_forcing": true}\n', log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = encode(text, pieces)
    n_consumed = matcher.try_consume_tokens(ids)
    return n_consumed == len(ids), matcher.is_accepting()
