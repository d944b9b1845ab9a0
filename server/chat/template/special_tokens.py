"""Finding texts of special tokens in what a client wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_END = ""  # key of a node at which a word ends


def special_token_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest where several do.

    Built as a tree of characters: an alternation of thousands of words would be tried word by word at every
    place.
    """
    trie: dict[str, Any] = {}
    for word in words:
        if len(word) > 1:  # one character cannot be broken, and is no markup
            node = trie
            for character in word:
                node = node.setdefault(character, {})
            node[_END] = {}
    return re.compile(_source(trie) if trie else r"(?!)")


def _source(node: dict[str, Any]) -> str:
    text = ""
    while len(node) == 1 and _END not in node:  # a long tail would nest too deeply for the compiler
        ((character, node),) = node.items()
        text += re.escape(character)
    branches = [re.escape(key) + _source(child) for key, child in sorted(node.items()) if key != _END]
    if not branches:
        return text
    return f"{text}(?:{'|'.join(branches)}){'?' if _END in node else ''}"
