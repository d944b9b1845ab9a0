# ruff: noqa: RUF001  (DeepSeek's tokens have full-width bars)
"""The vocabulary of a GGUF file: pieces, types, special ids, for all kinds of tokenizers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import IntEnum

from engine.gguf import GGUFFile, printable, validate_tokenizer
from engine.gguf.validate import token_ids

log = logging.getLogger(__name__)


class TokenType(IntEnum):
    """The numbers of `tokenizer.ggml.token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Texts by which a token is known for what it is, although no key says so. In order of preference: where a
# vocabulary has several ends of turn, all of them end generation, and the first is called `eot_id`.
END_OF_TURN = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
)
END_OF_MESSAGE = ("<|eom_id|>",)
FILL_IN_MIDDLE = {
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# These end a generation in whatever vocabulary they are.
END_OF_GENERATION = (
    *END_OF_TURN,
    *END_OF_MESSAGE,
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
# Structure of the harmony format that a client must see.
SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
# These are also ordinary markup, and plain pieces of some vocabularies (Qwen 2 has `</s>`): there, where the
# file calls them normal, they are text. llama.cpp ends generation at them all the same.
MARKUP = frozenset(("</s>", "<PRE>", "<SUF>", "<MID>", "<PAD>", "<REPO>", "[PAD]", "[EOS]"))
WELL_KNOWN = (*END_OF_GENERATION, *(text for texts in FILL_IN_MIDDLE.values() for text in texts), *SHOWN)


@dataclass
class Vocabulary:
    """Pieces and what the file says about them.

    ids: piece → id (of equal pieces the first). types: after corrections by well-known texts.
    special: ids by name (`bos`, `eos`, `eot`, …). rstrip, lstrip: tokens that swallow the white space after
    or before them.
    """

    kind: str
    pre: str | None
    path: str
    pieces: list[str]
    types: list[int]
    scores: list[float] | None
    ids: dict[str, int]
    special: dict[str, int]
    eog_ids: frozenset[int]
    lstrip: frozenset[int] = field(default=frozenset())
    rstrip: frozenset[int] = field(default=frozenset())

    def is_special(self, token: int) -> bool:
        """Whether a token is part of the format rather than of the text."""
        return self.types[token] in (TokenType.CONTROL, TokenType.UNKNOWN)

    @classmethod
    def from_gguf(cls, gguf: GGUFFile) -> Vocabulary:
        """Read and check it. Raises ModelError."""
        if not validate_tokenizer(gguf):
            gguf.fail("has no vocabulary; text cannot be turned into tokens")
        pieces = gguf.get_strs("tokenizer.ggml.tokens")
        declared = gguf.get_ints("tokenizer.ggml.token_type", len(pieces), None)
        types = [int(TokenType.NORMAL)] * len(pieces) if declared is None else declared
        empty = frozenset(i for i, piece in enumerate(pieces) if not piece) if "" in pieces else frozenset()
        ids = dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))
        if len(ids) < len(pieces) - max(len(empty) - 1, 0):
            log.warning("%s: some pieces of the vocabulary occur twice", printable(gguf.path))
        ids.pop("", None)
        for i in empty:  # never text, never matched; the ids after them keep their places
            pieces[i], types[i] = f"[EMPTY_{i}]", TokenType.UNUSED
        well_known = {text: ids[text] for text in WELL_KNOWN if text in ids}
        if declared is not None:
            well_known = {
                t: i for t, i in well_known.items() if t not in MARKUP or types[i] != TokenType.NORMAL
            }
        kind = gguf.get_str("tokenizer.ggml.model")
        special = _special_ids(gguf, kind, types, well_known)
        eog_ids = _end_of_generation(types, ids, well_known, special)
        vocabulary = cls(
            kind=kind,
            pre=gguf.get_str("tokenizer.ggml.pre", None),
            path=gguf.path,
            pieces=pieces,
            types=types,
            scores=gguf.get_floats("tokenizer.ggml.scores", len(pieces), None),
            ids=ids,
            special=special,
            eog_ids=eog_ids,
        )
        _strip_attributes(gguf, vocabulary)
        return vocabulary


BERT_IDS = {"pad": 0, "unk": 100, "bos": 101, "sep": 102, "mask": 103}


def _special_ids(gguf: GGUFFile, kind: str, types: list[int], well_known: dict[str, int]) -> dict[str, int]:
    """Ids by name: from the file, else by the kind's convention, else by a well-known text."""
    names = {"prefix": "fim_pre", "suffix": "fim_suf", "middle": "fim_mid"}
    names |= {"unknown": "unk", "separator": "sep"} | ({"cls": "bos"} if kind == "bert" else {})
    special: dict[str, int] = {}
    for name, token in token_ids(gguf).items():
        special.setdefault(names.get(name, name), token)
    defaults = {
        "llama": {"unk": 0, "bos": 1, "eos": 2},
        "gpt2": {"bos": 11, "eos": 11},
        "bert": BERT_IDS,
        "t5": {"pad": 0, "eos": 1, "unk": 2},
    }.get(kind, {})
    for name, token in defaults.items():
        # Old files rely on these, but a vocabulary that has plain text there does not.
        if token < len(types) and types[token] in (TokenType.CONTROL, TokenType.UNKNOWN):
            special.setdefault(name, token)
    for name, texts in {"eot": END_OF_TURN, "eom": END_OF_MESSAGE, **FILL_IN_MIDDLE}.items():
        marker = next((well_known[text] for text in texts if text in well_known), None)
        if name not in special and marker is not None:
            special[name] = marker
            types[marker] = TokenType.CONTROL
    return special


def _end_of_generation(
    types: list[int], ids: dict[str, int], well_known: dict[str, int], special: dict[str, int]
) -> frozenset[int]:
    """Every token after which generation ends. Corrects the types of tokens that a text identifies."""
    ends = {text: well_known[text] for text in END_OF_GENERATION if text in well_known}
    for token in ends.values():
        types[token] = TokenType.CONTROL
    for text in SHOWN:
        if text in well_known:
            types[well_known[text]] = TokenType.USER_DEFINED
    eog = set(ends.values())
    names = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
    eog.update(special[name] for name in names if name in special)
    calls = "<|call|>" in ends or "<|calls|>" in ends
    if "<|end|>" in ends and calls and ("<|return|>" in ends or "<|flush|>" in ends):
        # Harmony and its kin: <|end|> separates the messages of one answer.
        eog.discard(ends["<|end|>"])
        types[ends["<|end|>"]] = TokenType.USER_DEFINED
    if "</s>" in ends and ("<|tool_response>" in ends or "<|plamo:eos|>" in ids):
        # Here it is HTML, struck-through text.
        eog.discard(ends["</s>"])
        types[ends["</s>"]] = TokenType.NORMAL
    return frozenset(eog)


def _strip_attributes(gguf: GGUFFile, vocabulary: Vocabulary) -> None:
    """Which tokens strip the white space beside them. No key states it, so the model's name decides."""
    model = str(gguf.get_str("general.name", "")).lower()
    arch = gguf.get_str("general.architecture", "")
    pre, ids = vocabulary.pre or "", vocabulary.ids
    if any(name in pre for name in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or any(
        name in arch for name in ("nomic-bert-moe", "jina-bert-v3")
    ):
        vocabulary.lstrip = frozenset(ids[text] for text in ("<mask>",) if text in ids)
    elif "phi-3" in model or "phi3" in model:
        strip = {i for i, kind in enumerate(vocabulary.types) if kind in SPECIAL_TYPES}
        strip.update(ids[text] for text in ("</s>",) if text in ids)
        strip.difference_update(ids[text] for text in ("<unk>", "<s>", "<|endoftext|>") if text in ids)
        vocabulary.rstrip = frozenset(strip)
    elif "modern-bert" in model:
        vocabulary.lstrip = frozenset(ids[text] for text in ("[MASK]",) if text in ids)


SPECIAL_TYPES = frozenset((TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN))
