"""Compiles constraints to matchers, which say which tokens may come next. Uses llguidance.

What a grammar (`Constraint("lark", …)`) can use besides rules, terminals, `|`, `*`, `+`, `?` and `{m,n}`:

* `start` is the first rule. Where the grammar may end, end-of-generation tokens are allowed; where nothing
  else can follow, the generation ends by itself.
* Terminals (upper case, `"text"`, `/regex/`) match as much as they can, without backtracking: `/a*/ "ab"`
  matches nothing. Rules over them are context-free. Prefer long terminals: `/[a-z]+/`, not `/[a-z]/+`.
* `%json {schema}` in place of a rule. It is read as any schema (`engine.constraint.json_schema`), which its
  `x-guidance` tells how white space is written.
* Tokens that contribute no text (control tokens) match only where the grammar names them, as `<|name|>` or
  `<[123]>`; `token_rule` finds the right spelling. User-defined tokens are text: write their text.
* Free text until a trigger, from which on the grammar holds, is a lazy rule over text that ends with it:

      start: (call)* /(?s:.*)/
      call: until "{" … "}" "</tool_call>"
      until[lazy]: /(?s:.*)<tool_call>/

  For a trigger that is a control token write `start: (TEXT <[7]> json)* TEXT` with `TEXT: /(?s:.*)/`.
  With `+` in place of `*` one call at least is made.
* `%ignore` for what may stand between terminals; `name[lazy]`, `name[suffix="…"]`, `name[max_tokens=…]`.
* Not supported: lookaround, `(?…)` flags that extend beyond their regex, templates, imports other than
  `%import common`.
"""

from __future__ import annotations

import json
import random
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from engine.constraint import json_schema as schema
from engine.constraint.gbnf.lark import to_lark, with_checked_schemas
from engine.constraint.gbnf.parser import TokenId
from engine.constraint.matcher import ConstraintMatcher, NameGuard, error_line
from engine.constraint.unique_names import TokenIndex
from engine.errors import ConfigError
from engine.exact_json import loads
from engine.types import Constraint

KINDS = ("json_schema", "json_object", "regex", "choice", "gbnf", "lark")
MAX_BYTES = 512 * 1024
MAX_LARK_RULES = 5000
MAX_CHOICES = 10_000
# Limits of the work for one mask. Schemas lead to many items, but each is cheap; in ambiguous grammars the
# cost grows with the square of the items in a row.
MAX_ITEMS = {False: (1000, 100_000), True: (4200, 1_000_000)}  # is it a schema → in a row, in a step
MAX_FUEL = 200_000  # of a lexer, in a step
MAX_STATES = 50_000  # of a lexer: up to 2 kB each
_CACHED_CONSTRAINTS = 16  # compiled grammars
_STACK = 256 << 20  # llguidance recurses along chains of rules and references; untouched pages cost nothing
_PROBE_STEPS = 24
_LIMITS = re.compile(rf"^{schema.LIMITED_NAME}(\d{{1,9}})_", re.MULTILINE)
# Otherwise llguidance looks for text that can continue in one way only, and does not return where that has no
# end. Appended, so that it overrides what a grammar says.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'


class GrammarVocabulary(msgspec.Struct, array_like=True):
    """A model's vocabulary as constraints see it.

    tokens: the bytes that each token contributes to text; for those in `special`, their names. n: number of
    logits.
    """

    tokens: list[bytes]
    special: list[int]
    eog: list[int]
    n: int


def vocabulary_of(tokenizer: Any, n_vocab: int | None = None) -> GrammarVocabulary:
    """The vocabulary of an `engine.tokenizer.Tokenizer` for a model with `n_vocab` logits."""
    n = tokenizer.n_vocab if n_vocab is None else n_vocab
    tokens = [tokenizer.token_bytes(i, special=True) for i in range(min(n, tokenizer.n_vocab))]
    special = [i for i in range(len(tokens)) if tokenizer.is_special(i)]
    marked = set(special)
    for i, data in enumerate(tokens):
        if data[:1] == b"\xff" and i not in marked:
            tokens[i] = b""  # no text has this byte, and llguidance would take it for a special token
    tokens += [b""] * (n - len(tokens))
    return GrammarVocabulary(tokens, special, sorted(i for i in tokenizer.eog_ids if i < n), n)


def token_rule(tokenizer: Any, token: int) -> str:
    """How a Lark grammar spells one token: its text if it has any, else its id."""
    data: bytes = tokenizer.token_bytes(token)
    return json.dumps(data.decode()) if data else f"<[{token}]>"


def grammar(constraint: Constraint, vocabulary: GrammarVocabulary) -> schema.Rule:
    """The constraint as a Lark grammar. Raises ConfigError if it is not valid or exceeds the limits."""
    kind, text = constraint.kind, constraint.text
    if kind not in KINDS:
        raise ConfigError(f"the kind of a constraint must be one of {', '.join(KINDS)}, not {kind[:32]!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError("the text has unpaired surrogates") from None
    if size > MAX_BYTES:
        raise ConfigError(f"{size} bytes are too many; at most {MAX_BYTES} are supported")
    if kind == "json_object":
        return _started(schema.rule({"type": "object"}))
    if kind == "json_schema":
        return _started(schema.rule(loads(text)))
    if kind == "regex":
        return _started(schema.Rule(_regex(text), []))
    if kind == "choice":
        return _started(schema.Rule(" | ".join(map(json.dumps, _choices(text))), []))
    if kind == "gbnf":
        return schema.Rule(to_lark(text, _token_finder(vocabulary)), [])
    if text.count("\n") > MAX_LARK_RULES and sum(":" in line for line in text.splitlines()) > MAX_LARK_RULES:
        raise ConfigError(f"the grammar has more than {MAX_LARK_RULES} rules")
    return with_checked_schemas(text)


def _started(rule: schema.Rule) -> schema.Rule:
    return rule._replace(text="start: " + rule.text)


def _regex(pattern: str) -> str:
    """`\\d`, `\\w` and `\\s` are ASCII: no reader of numbers or dates takes the digits of other scripts."""
    from llguidance import LLMatcher, regex_to_lark

    if not pattern:
        return '""'
    text = f"/{regex_to_lark(pattern, 'dws')}/"
    error = LLMatcher.validate_grammar(f"start: {text}")
    if "look-around" not in error and "lookarounds" not in error:
        return text
    language = schema.whole_text(pattern)
    if language is None:
        raise ConfigError("nothing matches it")
    return f"X\nX: {language}"


def _choices(text: str) -> list[str]:
    choices = loads(text)
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) for c in choices):
        raise ConfigError("the choices must be a list of strings, at least one")
    if len(choices) > MAX_CHOICES:
        raise ConfigError(f"more than {MAX_CHOICES} choices are not supported")
    return choices


def _token_finder(vocabulary: GrammarVocabulary) -> TokenId:
    def find(spelled: str) -> int | None:
        data = spelled.encode()
        special = next((i for i in vocabulary.special if vocabulary.tokens[i] == data), None)
        if special is not None:
            return special
        return vocabulary.tokens.index(data) if data in vocabulary.tokens else None

    return find


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, and caches the last ones. Safe to use from several threads.

    vocabulary: the vocabulary, or a function that creates it when it is first needed.
    """

    def __init__(self, vocabulary: GrammarVocabulary | Callable[[], GrammarVocabulary]) -> None:
        self._source = vocabulary
        self._vocabulary: GrammarVocabulary | None = None
        self._tokenizer: Any = None
        self._names: TokenIndex | None = None
        self._bytes: dict[int, int] = {}
        self._known: OrderedDict[Constraint, ConstraintMatcher] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    @property
    def vocabulary(self) -> GrammarVocabulary:
        if self._vocabulary is None:
            self._vocabulary = self._source() if callable(self._source) else self._source
        return self._vocabulary

    @property
    def n_words(self) -> int:
        """uint32 words of a mask, of 32 tokens each."""
        return (self._size + 31) // 32

    @property
    def _size(self) -> int:
        # llguidance needs an end-of-generation token: without one it gets a token that has no logit.
        return self.vocabulary.n + (not self.vocabulary.eog)

    def submit(self, constraint: Constraint) -> Future[ConstraintMatcher]:
        """Compile in another thread. The future is done at once if the constraint is cached."""
        matcher = self._find(constraint)
        if matcher is not None:
            future: Future[ConstraintMatcher] = Future()
            future.set_result(matcher)
            return future
        with self._lock:
            if self._thread is None:
                self._thread = _deep_thread()
            return self._thread.submit(self._compile, constraint)

    def compile(self, constraint: Constraint) -> ConstraintMatcher:
        """A matcher at the beginning of a text. Raises ConfigError (one line) if compiling fails."""
        return self.submit(constraint).result()

    def probe(self, matcher: ConstraintMatcher) -> None:
        """Generate a few random tokens, to see early whether it is too complex. Raises ConfigError."""
        matcher = matcher.copy()
        chance = random.Random(0)
        eog = set(self.vocabulary.eog)
        for _ in range(_PROBE_STEPS):
            allowed = [i for i in self._allowed(matcher) if i not in eog]
            if not allowed:
                return
            matcher.commit(chance.choice(allowed))
            if matcher.must_stop:
                return

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _find(self, constraint: Constraint) -> ConstraintMatcher | None:
        with self._lock:
            matcher = self._known.get(constraint)
            if matcher is None:
                return None
            self._known.move_to_end(constraint)
            return matcher.copy()

    def _compile(self, constraint: Constraint) -> ConstraintMatcher:
        """In the thread with the large stack."""
        from llguidance import LLMatcher, LLParserLimits

        matcher = self._find(constraint)
        if matcher is not None:
            return matcher
        text, ignored = grammar(constraint, self.vocabulary)
        if self._tokenizer is None:
            self._tokenizer = _tokenizer_of(self.vocabulary, self._size)
        row, step = MAX_ITEMS[constraint.kind in ("json_schema", "json_object")]
        limits = LLParserLimits(
            max_items_in_row=row,
            step_max_items=step,
            step_lexer_fuel=MAX_FUEL,
            max_lexer_states=MAX_STATES,
            verbose_errors=False,
        )
        inner = LLMatcher(self._tokenizer, text + _OPTIONS, log_level=0, limits=limits)
        if inner.is_error():
            raise ConfigError(error_line(inner.get_error(), located=constraint.kind == "lark"))
        ignored += [error_line(warning) for warning in inner.get_grammar_warnings()]
        matcher = ConstraintMatcher(inner, self.n_words, tuple(ignored), self._name_guard(text))
        if not self._allowed(matcher):
            raise ConfigError("nothing matches it")
        with self._lock:
            self._known[constraint] = matcher
            while len(self._known) > _CACHED_CONSTRAINTS:
                self._known.popitem(last=False)
        return matcher.copy()

    def _name_guard(self, text: str) -> NameGuard | None:
        """A guard for grammars that allow names that they do not list."""
        limit = max(map(int, _LIMITS.findall(text)), default=0)
        if not limit and schema.FREE_NAME not in text:
            return None
        if self._names is None:
            vocabulary = self.vocabulary
            tokens = vocabulary.tokens
            self._names = TokenIndex(tokens, [*vocabulary.special, *vocabulary.eog])
            self._bytes = {data[0]: i for i, data in enumerate(tokens) if len(data) == 1}
        return NameGuard(self._names, self._bytes, limit=limit)

    def _allowed(self, matcher: ConstraintMatcher) -> list[int]:
        mask = array("I", bytes(4 * self.n_words))
        matcher.fill(mask)
        return [32 * i + bit for i, word in enumerate(mask) if word for bit in range(32) if word >> bit & 1]


class _TokenizerWrapper:
    """The vocabulary in the form that llguidance expects.

    It cannot be called to tokenize text: llguidance does that only for text that it forces, which `_OPTIONS`
    switches off.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: GrammarVocabulary, size: int) -> None:
        self.tokens = vocabulary.tokens + [b""] * (size - vocabulary.n)
        self.special_token_ids = vocabulary.special
        self.eos_token_id = vocabulary.eog[0] if vocabulary.eog else vocabulary.n


def _tokenizer_of(vocabulary: GrammarVocabulary, size: int) -> Any:
    from llguidance import LLTokenizer

    wrapper: Any = _TokenizerWrapper(vocabulary, size)
    return LLTokenizer(wrapper, n_vocab=size, eos_token=vocabulary.eog or [vocabulary.n])


def _deep_thread() -> ThreadPoolExecutor:
    """An executor of one thread with a large stack."""
    before = threading.stack_size()
    for size in (_STACK, before):
        try:
            threading.stack_size(size)
            executor = ThreadPoolExecutor(1, "constraint")
            executor.submit(int).result()  # starts it
            return executor
        except (RuntimeError, ValueError):  # a limit of the system
            continue
        finally:
            threading.stack_size(before)
    return ThreadPoolExecutor(1, "constraint")
