"""Fill in the middle (FIM): prompts for the text between a prefix and a suffix.

    [repository] name, for each extra piece [file] name and text, [file] name, [prefix] … [suffix] … [middle]

The first line only with extra pieces, and as far as the vocabulary has its tokens (Qwen2.5-Coder, arXiv
2409.12186); the rest is as in arXiv 2207.14255, prefix first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from server.errors import ApiError, unsupported
from server.worker.engine import Engine

_REPOSITORY, _FILE = "myproject\n", "filename\n"  # no field sets them
_SNIPPET = "\n\n--- snippet ---\n\n"  # where a vocabulary has no token between files
_NAMES = {"fim_pre_id": "prefix", "fim_suf_id": "suffix", "fim_mid_id": "middle"}


class ExtraFile(NamedTuple):
    """An excerpt of another file."""

    text: str
    filename: str = "tmp"


class Gap(NamedTuple):
    """The token ids around the gap."""

    extra: list[int]
    prefix: list[int]
    suffix: list[int]

    def cut_to(self, room: int) -> Gap:
        """The parts that fit into `room` tokens: the beginning of the suffix (at least a quarter of the room,
        if it is that long), the end of the prefix, then the end of the extra files.
        """
        n_suffix = min(len(self.suffix), max(room // 4, room - len(self.prefix)))
        n_prefix = min(len(self.prefix), room - n_suffix)
        n_extra = min(len(self.extra), room - n_suffix - n_prefix)
        return Gap(_last(self.extra, n_extra), _last(self.prefix, n_prefix), self.suffix[:n_suffix])

    def prompt(self, tokenizer: Any) -> list[int]:
        """The prompt, with the special tokens that mark its parts."""
        before = [tokenizer.bos_id] if tokenizer.add_bos else []
        return [
            *before,
            *self.extra,
            tokenizer.fim_pre_id,
            *self.prefix,
            tokenizer.fim_suf_id,
            *self.suffix,
            tokenizer.fim_mid_id,
        ]


N_MARKS = 4  # beginning of text, prefix, suffix, middle


def _last(ids: list[int], n: int) -> list[int]:
    return ids[len(ids) - n :]


def missing(tokenizer: Any) -> list[str]:
    """The fill-in-the-middle tokens that a vocabulary lacks; a model needs all three."""
    return [name for attribute, name in _NAMES.items() if getattr(tokenizer, attribute) is None]


def require(engine: Engine, param: str | None = None) -> None:
    """Raises 501 if the model lacks the tokens, or 400 if only one field needs them."""
    lacking = missing(engine.tokenizer)
    if not lacking:
        return
    which = ", ".join(lacking)
    message = f"model '{engine.name}' cannot fill in the middle: its vocabulary has no token for {which}"
    if param is not None:
        raise unsupported(param, message)
    raise ApiError(501, message, code="not_supported")


def gap(tokenizer: Any, prefix: str, suffix: str, extra: Sequence[ExtraFile] = ()) -> Gap:
    """The texts as tokens; no text is read as a special token."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special=False, parse_special=False)
        return ids

    before: list[int] = []
    separator = tokenizer.fim_sep_id
    if extra:
        if tokenizer.fim_rep_id is not None:
            before += [tokenizer.fim_rep_id, *encode(_REPOSITORY)]
        for text, filename in extra:
            between = encode(_SNIPPET) if separator is None else [separator, *encode(f"{filename}\n")]
            before += between + encode(text)
        if separator is not None:
            before += [separator, *encode(_FILE)]
    return Gap(before, encode(prefix), encode(suffix))
