"""Which parts of a GBNF grammar become terminals (lexemes).

GBNF has no terminals: a text matches if its characters can be derived in any way. llguidance reads lexemes
greedily, which is some hundred times faster than rules over single characters. So regular parts of the
grammar become lexemes, as large as possible, but only where greedy reading cannot change what matches. Where
that is not certain, a part is cut into smaller ones, down to single characters, for which it always is.

A part P is kept whole if, judged by the first byte of the next character,

* after a complete P either P continues or what follows begins, never both, and
* no two lexemes that may stand at the same place begin with the same byte, unless both are single characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.constraint.gbnf.parser import Alt, Node, Ref, Repeat, Rules, Seq, Text, TokenRef, children, walk
from engine.constraint.gbnf.shapes import LexemeShape, shape_of, token_shape, union

_MOST_LEXEMES = 1500  # comparing them is quadratic


@dataclass
class _Sets:
    """Sets of lexemes at one place of the grammar, as integers with a bit for each lexeme."""

    nullable: bool = False
    first: int = 0
    last: int = 0


@dataclass
class LexemeGrammar:
    """Rules over lexemes. A node that is a key of `lexemes` is one."""

    rules: Rules = field(default_factory=dict)
    lexemes: dict[Node, int] = field(default_factory=dict)  # numbered


def cut(rules: Rules) -> LexemeGrammar:
    """The grammar over lexemes that matches the same texts."""
    return _Cutter(rules).cut()


class _Cutter:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._regular = _regular_rules(rules)
        self._shapes: dict[Node, LexemeShape] = {}
        self._cut: set[Node] = set()
        for name in self._regular:  # each after those that it refers to
            self._shapes[Ref(name)] = self._shape(rules[name])

    def cut(self) -> LexemeGrammar:
        """Cut until all lexemes may be read greedily."""
        while True:
            grammar = self._build()
            if len(grammar.lexemes) > _MOST_LEXEMES:
                return grammar if self._all_single(grammar) else self._cut_all(grammar)
            wrong = self._violations(grammar)
            if not wrong:
                return grammar
            self._cut |= wrong

    def _all_single(self, grammar: LexemeGrammar) -> bool:
        return all(isinstance(node, TokenRef) or not self._divisible(node) for node in grammar.lexemes)

    def _cut_all(self, grammar: LexemeGrammar) -> LexemeGrammar:
        while wrong := {node for node in grammar.lexemes if self._divisible(node)}:
            self._cut |= wrong
            grammar = self._build()
        return grammar

    def _divisible(self, node: Node) -> bool:
        return not isinstance(node, TokenRef) and not self._shape(node).single and node != Text("")

    # ** regular parts **

    def _is_regular(self, node: Node) -> bool:
        return all(
            part.rule in self._regular if isinstance(part, Ref) else not isinstance(part, TokenRef)
            for part in walk(node)
        )

    def _shape(self, node: Node) -> LexemeShape:
        shape = self._shapes.get(node)
        if shape is None:
            shape = self._shapes[node] = shape_of(node, self._shape)
        return shape

    # ** the grammar of lexemes **

    def _build(self) -> LexemeGrammar:
        grammar = LexemeGrammar()
        todo = ["root"]
        while todo:
            name = todo.pop()
            if name in grammar.rules:
                continue
            body = grammar.rules[name] = self._over_lexemes(self._rules[name], grammar.lexemes)
            todo += [
                part.rule
                for part in _parts(body, grammar.lexemes)
                if isinstance(part, Ref) and part not in grammar.lexemes
            ]
        return grammar

    def _over_lexemes(self, node: Node, lexemes: dict[Node, int]) -> Node:
        """The node with its regular parts as lexemes, which are added to `lexemes`."""
        if isinstance(node, TokenRef) or (node not in self._cut and self._is_regular(node)):
            lexemes.setdefault(node, len(lexemes))
            return node
        match node:
            case Text(text):
                return self._over_lexemes(Seq(tuple(Text(c) for c in text)), lexemes)
            case Seq(items):
                runs = self._runs(items) if node not in self._cut else items
                return Seq(tuple(self._over_lexemes(item, lexemes) for item in runs))
            case Alt(options):
                if node not in self._cut:
                    regular = tuple(option for option in options if self._is_regular(option))
                    others = tuple(option for option in options if option not in regular)
                    together = Alt(regular)
                    if len(regular) > 1 and together not in self._cut:
                        options = (together, *others)
                return Alt(tuple(self._over_lexemes(option, lexemes) for option in options))
            case Repeat(inner, least, most):
                return Repeat(self._over_lexemes(inner, lexemes), least, most)
        return node  # a reference to a rule that is not regular

    def _runs(self, items: tuple[Node, ...]) -> Iterable[Node]:
        """The items, with regular neighbours joined to one."""
        run: list[Node] = []
        for item in (*items, None):
            if item is not None and self._is_regular(item):
                run.append(item)
                continue
            together = Seq(tuple(run))
            yield from (together,) if len(run) > 1 and together not in self._cut else run
            run = []
            if item is not None:
                yield item

    # ** where greedy reading is right **

    def _violations(self, grammar: LexemeGrammar) -> set[Node]:
        """Lexemes that have to be cut."""
        start, follow = _adjacent(grammar, self._lexeme_nullable)
        nodes = list(grammar.lexemes)
        shapes = [token_shape(n) if isinstance(n, TokenRef) else self._shape(n) for n in nodes]
        wrong: set[Node] = set()
        places = [start, *_with_ties(follow, shapes, start)]
        for place in set(places):
            seen_one = seen_more = 0  # first bytes of single characters, of others
            for i in _bits(place):
                shape = shapes[i]
                if shape.first & (seen_more if shape.single else seen_one | seen_more):
                    clash = [j for j in _bits(place) if j != i and shapes[j].first & shape.first]
                    wrong |= {nodes[j] for j in (i, *clash) if self._divisible(nodes[j])}
                if shape.single:
                    seen_one |= shape.first
                else:
                    seen_more |= shape.first
        for i, following in enumerate(places[1:]):
            if shapes[i].extends & union(shapes[j].first for j in _bits(following)):
                wrong.add(nodes[i])
        return wrong

    def _lexeme_nullable(self, node: Node) -> bool:
        return not isinstance(node, TokenRef) and self._shape(node).nullable


def _bits(number: int) -> Iterable[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def _with_ties(follow: list[int], shapes: list[LexemeShape], start: int) -> list[int]:
    """What may follow each lexeme; single characters that may be read at the same time count as one."""
    group = list(range(len(follow)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    merged = list(follow)
    grown = True
    while grown:
        grown = False
        for place in {start, *(merged[root(i)] for i in range(len(follow)))}:
            singles = [i for i in _bits(place) if shapes[i].single]
            for n, i in enumerate(singles):
                for j in singles[:n]:
                    a, b = root(i), root(j)
                    if a != b and shapes[i].first & shapes[j].first:
                        group[a] = b
                        merged[b] |= merged[a]
                        grown = True
    return [merged[root(i)] for i in range(len(follow))]


def _adjacent(grammar: LexemeGrammar, lexeme_nullable: Callable[[Node], bool]) -> tuple[int, list[int]]:
    """Lexemes that may come first, and those that may come after each one."""
    lexemes, rules = grammar.lexemes, grammar.rules
    sets_of = {name: _Sets() for name in rules}
    follow = [0] * len(lexemes)

    def sets(node: Node) -> _Sets:
        number = lexemes.get(node)
        if number is not None:
            return _Sets(lexeme_nullable(node), 1 << number, 1 << number)
        match node:
            case Ref(rule):
                return sets_of[rule]
            case Seq(items):
                joined = _Sets(True)
                for item in items:
                    right = sets(item)
                    for i in _bits(joined.last):
                        follow[i] |= right.first
                    joined = _Sets(
                        joined.nullable and right.nullable,
                        joined.first | (right.first if joined.nullable else 0),
                        right.last | (joined.last if right.nullable else 0),
                    )
                return joined
            case Alt(options):
                each = [sets(option) for option in options]
                return _Sets(
                    any(s.nullable for s in each), union(s.first for s in each), union(s.last for s in each)
                )
            case Repeat(inner, least, most):
                joined = sets(inner)
                if most is None or most > 1:
                    for i in _bits(joined.last):
                        follow[i] |= joined.first
                return _Sets(joined.nullable or least == 0, joined.first, joined.last)
        raise AssertionError(node)

    before: list[object] = []
    while True:
        for name, node in rules.items():
            sets_of[name] = sets(node)
        now: list[object] = [(s.nullable, s.first, s.last) for s in sets_of.values()]
        if now == before:
            return sets_of["root"].first, follow
        before = now


def _parts(node: Node, lexemes: dict[Node, int]) -> Iterable[Node]:
    """What a node is made of, down to lexemes and references."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        if node not in lexemes:
            todo.extend(children(node))


def _regular_rules(rules: Rules) -> dict[str, None]:
    """Rules that no recursion is in, nor tokens; each after those that it refers to."""
    needs = {
        name: {part.rule for part in walk(node) if isinstance(part, Ref)}
        for name, node in rules.items()
        if not any(isinstance(part, TokenRef) for part in walk(node))
    }
    users: dict[str, list[str]] = {}
    for name, needed in needs.items():
        for other in needed:
            users.setdefault(other, []).append(name)
    missing = {name: len(needed) for name, needed in needs.items()}
    ready = [name for name, n in missing.items() if not n]
    regular: dict[str, None] = {}
    while ready:
        name = ready.pop()
        regular[name] = None
        for user in users.get(name, ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    return regular
