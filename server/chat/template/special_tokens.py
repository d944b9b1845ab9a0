"""Finds the texts of special tokens in what a client sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_END = ""  # key of a node at which a text ends


def special_tokens_of(tokenizer: Any) -> re.Pattern[str]:
    """A pattern that matches the text of any special token of the vocabulary."""
    texts = {tokenizer.token_text(i) for i in range(tokenizer.n_vocab) if tokenizer.is_special(i)}
    return special_token_pattern(texts)


def special_token_pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the texts, the longest where several match.

    It is built from a trie: an alternation of thousands of texts would be tried one by one at every position.
    """
    trie: dict[str, Any] = {}
    for text in texts:
        if len(text) > 1:  # a single character cannot be split, and is not markup
            node = trie
            for character in text:
                node = node.setdefault(character, {})
            node[_END] = {}
    return re.compile(_source(trie) if trie else r"(?!)")


def _source(node: dict[str, Any]) -> str:
    text = ""
    while len(node) == 1 and _END not in node:  # nested, a long tail would be too deep for the compiler
        ((character, node),) = node.items()
        text += re.escape(character)
    branches = [re.escape(key) + _source(child) for key, child in sorted(node.items()) if key != _END]
    if not branches:
        return text
    return f"{text}(?:{'|'.join(branches)}){'?' if _END in node else ''}"
