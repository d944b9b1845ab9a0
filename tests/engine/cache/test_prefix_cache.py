"""The radix tree of computed prefixes: what is found, shared, split and evicted."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PLAIN, Node, PrefixCache, Variant
from engine.cache.prefix_miss import Miss


def tokens_of(text: str) -> array[int]:
    """One token per letter, so that trees can be read."""
    return array("i", map(ord, text))


class Book:
    """An index, and what is really written in the cells."""

    def __init__(self, n_cells: int = 64) -> None:
        self.pool = CellPool(n_cells)
        self.index = PrefixCache(self.pool)
        self.content: dict[int, tuple[int, ...]] = {}  # cell → the tokens up to and including its own

    def hold(self, tokens: array[int]) -> tuple[Node | None, array[int], int]:
        """Compute `tokens` as a session does: reuse what is known, publish the rest, keep the lock."""
        match = self.index.acquire(tokens, len(tokens) - 1)
        cells = match.cells
        self.verify(tokens, cells)
        cells.extend(self.pool.alloc(len(tokens) - match.n))
        for p in range(match.n, len(tokens)):
            self.content[cells[p]] = tuple(tokens[: p + 1])
        node = self.index.insert(tokens, cells, len(tokens), match.node, match.n)
        self.verify(tokens, cells)
        return node, cells, match.n

    def verify(self, tokens: Sequence[int], cells: Sequence[int]) -> None:
        for p, cell in enumerate(cells):
            assert self.content[cell] == tuple(tokens[: p + 1])

    def keep(self, text: str) -> array[int]:
        node, cells, _ = self.hold(tokens_of(text))
        assert node is not None
        self.index.release(node)
        self.index.check()
        return cells

    def known(self, text: str) -> str:
        match = self.index.match(tokens_of(text))
        self.verify(tokens_of(text), match.cells)
        assert match.n == len(match.cells)
        return text[: match.n]

    def tree(self) -> dict[str, object]:
        def children(node: Node) -> dict[str, object]:
            return {"".join(map(chr, child.tokens)): children(child) for child in node.children.values()}

        return children(self.index.roots[PLAIN]) if PLAIN in self.index.roots else {}


def test_match_in_an_empty_cache_finds_nothing() -> None:
    book = Book()
    assert book.index.match(tokens_of("abc")) == (0, array("i"), None, 0, 0, Miss.NEW)
    assert book.index.acquire(tokens_of("abc")).node is None
    assert book.index.evict(5) == 0
    book.index.check()


def test_a_prefix_is_found_token_by_token() -> None:
    book = Book()
    cells = book.keep("the cat")
    assert [book.known(text) for text in ("the cat", "the cow", "the", "the cat sat", "a")] == [
        "the cat",
        "the c",
        "the",
        "the cat",
        "",
    ]
    assert book.index.match(tokens_of("the cow")).cells == cells[:5]
    assert book.index.match(tokens_of("the cat"), limit=6).n == 6
    assert book.tree() == {"the cat": {}}  # looking does not split


def test_branches_share_their_common_prefix() -> None:
    book = Book()
    book.keep("the cat")
    used = book.pool.n_cells - book.pool.n_free
    book.keep("the cow")
    assert book.tree() == {"the c": {"at": {}, "ow": {}}}
    assert book.pool.n_cells - book.pool.n_free == used + len("ow")
    book.keep("a dog")
    book.keep("the")
    assert book.tree() == {"th": {"e": {" c": {"at": {}, "ow": {}}}}, "a dog": {}}


def test_a_conversation_stays_one_node() -> None:
    book = Book()
    for text in ("hi", "hi there", "hi there you"):
        book.keep(text)
    assert book.tree() == {"hi there you": {}}
    assert book.known("hi there you too") == "hi there you"


def test_node_grows_in_place_only_if_no_other_sequence_ends_in_it() -> None:
    book = Book()
    first, cells, _ = book.hold(tokens_of("abc"))
    assert first is not None
    second = book.index.acquire(tokens_of("abc"))
    assert second.node is first
    cells.append(book.pool.alloc_one())
    book.content[cells[3]] = tuple(tokens_of("abcd"))
    longer = book.index.insert(tokens_of("abcd"), cells, 4, first, 3)
    assert longer is not first
    assert (len(first.cells), first.lock, longer.lock) == (3, 2, 1)
    book.index.release(longer)
    book.index.release(first)
    book.index.check()
    assert book.index.n_evictable == book.index.n_cells == 4


def test_cells_computed_twice_are_freed() -> None:
    book = Book()
    tokens = tokens_of("same")
    mine = book.pool.alloc(4)
    theirs = book.keep("same")
    free = book.pool.n_free
    node = book.index.insert(tokens, mine, 4)
    assert mine == theirs
    assert book.pool.n_free == free + 4
    book.index.release(node)
    book.index.check()


def test_eviction_takes_the_least_recently_used_first() -> None:
    book = Book(13)
    for text in ("aaa", "bbb", "ccc", "ddd"):
        book.keep(text)
    assert book.pool.n_free == 1
    book.keep("aaa")  # used again
    assert book.index.evict(3) == 3
    assert [book.known(text) for text in ("aaa", "bbb", "ccc", "ddd")] == ["aaa", "", "ccc", "ddd"]
    assert book.index.evict(6) == 6
    assert [book.known(text) for text in ("aaa", "bbb", "ccc", "ddd")] == ["aaa", "", "", ""]
    assert book.index.n_evicted == 9
    book.index.check()


def test_release_counts_as_use() -> None:
    book = Book(13)
    node, _, _ = book.hold(tokens_of("aaa"))
    assert node is not None
    for text in ("bbb", "ccc", "ddd"):
        book.keep(text)
    book.index.release(node)
    assert book.index.evict(9) == 9
    assert [book.known(text) for text in ("aaa", "bbb", "ccc", "ddd")] == ["aaa", "", "", ""]


def test_match_does_not_count_as_use() -> None:
    book = Book(12)
    book.keep("aaa")
    book.keep("bbb")
    book.known("aaa")
    book.index.evict(3)
    assert (book.known("aaa"), book.known("bbb")) == ("", "bbb")


def test_a_leaf_is_trimmed_from_its_tail() -> None:
    book = Book()
    book.keep("abcdefgh")
    assert book.index.evict(3) == 3
    assert book.known("abcdefgh") == "abcde"
    assert book.index.evict(1) == 1
    assert book.known("abcdefgh") == "abcd"
    book.index.check()


def test_leaves_are_evicted_before_their_parents() -> None:
    book = Book()
    for text in ("system: one", "system: two"):
        book.keep(text)
    assert book.index.evict(4) == 4
    assert (book.known("system: one"), book.known("system: two")) == ("system: ", "system: tw")
    assert book.index.evict(100) == 10
    assert book.tree() == {}
    assert book.pool.n_free == book.pool.n_cells
    book.index.check()


def test_locked_cells_are_not_evicted() -> None:
    book = Book()
    node, _, _ = book.hold(tokens_of("locked"))
    assert node is not None
    book.keep("locked too")
    book.keep("loose")
    assert book.index.n_evictable == len(" too") + len("ose")
    assert book.index.evict(100) == 7
    assert book.known("locked too") == "locked"
    assert book.index.evict(1) == 0
    book.index.release(node)
    assert book.index.evict(100) == 6
    book.index.check()


def test_match_counts_the_unlocked_cells_that_locking_would_take() -> None:
    book = Book()
    node, _, _ = book.hold(tokens_of("abc"))
    assert node is not None
    book.keep("abcdef")
    match = book.index.match(tokens_of("abcdeX"))
    assert (match.n, match.n_unlocked) == (5, 2)
    before = book.index.n_evictable
    held = book.index.acquire(tokens_of("abcdeX")).node
    assert before - book.index.n_evictable == 2
    assert held is not None
    for one in (held, node):
        book.index.release(one)
    book.index.check()


def test_a_locked_node_may_be_split() -> None:
    book = Book()
    node, cells, _ = book.hold(tokens_of("abcdef"))
    assert node is not None
    book.keep("abcxyz")
    assert "".join(map(chr, node.tokens)) == "def"  # still where the first session ends
    assert node.parent is not None
    assert node.parent.lock == node.lock == 1
    assert book.index.evict(100) == len("xyz")
    book.verify(tokens_of("abcdef"), cells)
    book.index.release(node)
    book.index.check()


def test_forget_drops_cells_that_no_other_sequence_uses() -> None:
    book = Book()
    first, _, _ = book.hold(tokens_of("shared, mine"))
    second, _, _ = book.hold(tokens_of("shared, yours"))
    assert first is not None
    assert second is not None
    book.index.forget(first)
    assert book.known("shared, mine") == "shared, "
    assert book.known("shared, yours") == "shared, yours"
    book.index.check()
    book.index.forget(second)
    assert book.tree() == {}
    assert book.pool.n_free == book.pool.n_cells
    book.index.check()


def test_eviction_queue_does_not_grow_without_bound() -> None:
    book = Book()
    for _ in range(5000):
        node = book.index.acquire(tokens_of("x")).node
        if node is None:
            book.keep("x")
        else:
            book.index.release(node)
    assert len(book.index._lru) < 2000
    book.index.check()


@pytest.mark.parametrize("seed", range(12))
def test_random_use_matches_the_written_contents(seed: int) -> None:
    """Whatever is held, released, forgotten and evicted: a match tells only what the cells really hold."""
    rng = random.Random(seed)
    book = Book(40)
    held: list[tuple[Node, array[int], array[int]]] = []
    for _ in range(600):
        action = rng.random()
        if action < 0.5:
            tokens = array("i", [rng.randrange(1 + rng.randrange(3)) for _ in range(rng.randint(1, 12))])
            match = book.index.match(tokens, len(tokens) - 1)
            need = len(tokens) - match.n
            if need > book.pool.n_free + book.index.n_evictable - match.n_unlocked:
                continue
            lock = book.index.acquire(tokens, len(tokens) - 1).node  # keep it while others are evicted
            if need > book.pool.n_free:
                book.index.evict(need - book.pool.n_free)
            node, cells, n = book.hold(tokens)
            assert n == match.n
            if lock is not None:
                book.index.release(lock)
            assert node is not None
            held.append((node, tokens, cells))
        elif action < 0.8 and held:
            node, tokens, cells = held.pop(rng.randrange(len(held)))
            book.verify(tokens, cells)
            if rng.random() < 0.2:
                book.index.forget(node)
            else:
                book.index.release(node)
        else:
            book.index.evict(rng.randint(1, 10))
        book.index.check()
        for _, tokens, cells in held:
            book.verify(tokens, cells)
            assert book.index.match(tokens).cells == cells
        assert book.pool.n_free + book.index.n_cells == book.pool.n_cells
    for node, _, _ in held:
        book.index.release(node)
    n_cells = book.index.n_cells
    assert book.index.evict(1000) == n_cells
    assert book.pool.n_free == book.pool.n_cells


def test_match_reports_why_it_ends():
    pool = CellPool(12)
    cache = PrefixCache(pool)

    def keep(*tokens):
        node = cache.insert(array("i", tokens), pool.alloc(len(tokens)), len(tokens))
        cache.release(node)

    def miss(*tokens, variant=PLAIN):
        return cache.match(array("i", tokens), variant=variant).miss

    assert miss(1, 2) == Miss.NEW
    keep(1, 2, 3, 4)
    assert miss(1, 2, 3, 4) == miss(1, 2) == Miss.NONE
    assert miss(1, 2, 3, 4, 5) == Miss.EXTENDED
    assert miss(1, 2, 9) == Miss.DIVERGED
    assert miss(8) == miss(1, 2, variant=Variant(salt="b")) == Miss.NEW
    keep(7, 7, 7)
    cache.evict(2)  # the tail of what was used least recently
    assert miss(1, 2, 3) == Miss.EVICTED
    assert miss(1, 2, 9) == Miss.EXTENDED
    cache.evict(2)
    assert miss(1, 2) == Miss.EVICTED
    assert miss(8) == Miss.NEW
    cache.evict(3)
    keep(1, 2)
    assert miss(1, 2, 5) == Miss.EXTENDED
    cache.check()
