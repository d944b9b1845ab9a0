"""Kind `llama`: SentencePiece's BPE. The pair whose joined piece scores best is merged, leftmost first.

Not on Hugging Face's BPE, which ranks pairs: here pieces are ranked, so equal ranks are the rule (`a`+`aa`
and `aa`+`a`) and position decides among them; and characters without a token take part in merges. Where no
piece reaches over the border of a word, words are encoded alone and remembered.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from engine.gguf import GGUFFile
from engine.tokenizer.base import byte_of
from engine.tokenizer.special import Fragment
from engine.tokenizer.vocab import TokenType, Vocabulary
from engine.tokenizer.words import SPACE, WordTokenizer

_NEVER_TEXT = frozenset((TokenType.UNKNOWN, TokenType.CONTROL, TokenType.BYTE))


class SPMTokenizer(WordTokenizer):
    """SentencePiece BPE with byte fallback."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary) -> None:
        types, pieces = vocabulary.types, vocabulary.pieces
        self._ids = {piece: i for piece, i in vocabulary.ids.items() if types[i] not in _NEVER_TEXT}
        scores = vocabulary.scores or [0.0] * len(pieces)
        # Equal scores are equal ranks; the smallest is merged first. One character is never a result.
        order = {score: r for r, score in enumerate(sorted(set(scores), reverse=True))}
        self._rank = {piece: order[scores[i]] for piece, i in self._ids.items() if len(piece) > 1}
        self._byte_ids = self._bytes_to_ids(vocabulary)
        super().__init__(gguf, vocabulary, self._rank, add_bos=True, add_eos=False)

    def _bytes_to_ids(self, vocabulary: Vocabulary) -> list[int | None]:
        ids: list[int | None] = [vocabulary.ids.get(chr(b)) if b < 128 else None for b in range(256)]
        for i, kind in enumerate(vocabulary.types):
            value = byte_of(vocabulary.pieces[i]) if kind == TokenType.BYTE else None
            if value is not None:
                ids[value] = i
        return ids

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        ids: list[int] = []
        prefix = SPACE if self.add_space_prefix else ""
        after_special = True
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
                after_special = True
                continue
            text = self._squeezed(fragment).replace(" ", SPACE)
            if text:
                ids += self._encode_text(prefix + text if after_special else text)
                after_special = False
        return ids

    def _encode_word(self, text: str) -> list[int]:
        """O(n log n). The symbol that starts at character i has `size[i]` characters."""
        n = len(text)
        rank = self._rank.get
        size = [1] * n
        before = list(range(-1, n - 1))
        # Rank of the symbol at i joined with the next one, -1: no piece. A single character has no rank.
        pair = [rank(text[i : i + 2], -1) for i in range(n)]
        queue = [r * n + i for i, r in enumerate(pair) if r >= 0]
        heapify(queue)
        while queue:
            r, left = divmod(heappop(queue), n)
            if pair[left] != r:
                continue  # one of the two was merged with another since
            right = left + size[left]
            after = right + size[right]
            size[left], pair[left], pair[right] = after - left, -1, -1
            if after < n:
                before[after] = left
                r = rank(text[left : after + size[after]], -1)
                if r >= 0:
                    pair[left] = r
                    heappush(queue, r * n + left)
            first = before[left]
            if first >= 0:
                pair[first] = r = rank(text[first:after], -1)
                if r >= 0:
                    heappush(queue, r * n + first)
        ids: list[int] = []
        start = 0
        while start < n:
            piece = text[start : start + size[start]]
            token = self._ids.get(piece)
            if token is None:
                ids.extend(self._fall_back(piece))
            else:
                ids.append(token)
            start += len(piece)
        return ids

    def _fall_back(self, character: str) -> list[int]:
        """The bytes of a character that has no token; the unknown token where bytes have none either."""
        ids = [self._byte_ids[b] for b in character.encode()]
        if None in ids:
            return [] if self.unk_id is None else [self.unk_id]
        return [i for i in ids if i is not None]
