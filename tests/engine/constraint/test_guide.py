"""Guides: futures of compiled constraints, and masks from matcher and reasoning block."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from engine.constraint.guide import OutputGuide, OutputGuides
from engine.constraint.unique_names import TokenMask
from engine.errors import ConfigError
from engine.types import Constraint, Reasoning

N_VOCAB, EOG, OPEN, CLOSE = 70, 0, 1, 2
ANY = Constraint("regex", "x")


class FakeMatcher:
    """Allows one token, whatever came before; refuses token 66."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.consumed: list[int] = []
        self.may_stop, self.must_stop = True, False

    def fill(self, mask: TokenMask) -> None:
        for i in range(len(mask)):
            mask[i] = 1 << self.allowed % 32 if i == self.allowed // 32 else 0

    def commit(self, token: int) -> None:
        if token == 66:
            raise ConfigError("no match")
        self.consumed.append(token)

    def accepts(self, token: int) -> bool:
        return token == self.allowed


class FakeCompiler:
    n_words = 3

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, constraint: Constraint) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


@pytest.fixture
def compiler() -> FakeCompiler:
    return FakeCompiler()


@pytest.fixture
def guides(compiler: FakeCompiler) -> OutputGuides:
    return OutputGuides(compiler, lambda token: b"" if token <= CLOSE else b"x", N_VOCAB, {EOG})  # type: ignore[arg-type]


def allowed(mask: TokenMask | None) -> list[int] | None:
    return None if mask is None else [i for i in range(N_VOCAB) if mask[i // 32] >> i % 32 & 1]


def compiled(guides: OutputGuides, compiler: FakeCompiler, matcher: FakeMatcher, **block: Any) -> OutputGuide:
    guide = guides.compile(ANY, Reasoning(**block) if block else None)
    compiler.futures[-1].set_result(matcher)
    return guide.result()


def test_compile_without_a_constraint_is_done_at_once(guides: OutputGuides, compiler: FakeCompiler) -> None:
    guide = guides.compile(None, Reasoning(end=(CLOSE,), opened=True))
    assert guide.done()
    assert not compiler.futures


def test_compile_resumes_after_the_generated_tokens(guides: OutputGuides, compiler: FakeCompiler) -> None:
    guide = guides.compile(ANY, None, [7, 8])
    assert not guide.done()
    matcher = FakeMatcher(5)
    compiler.futures[0].set_result(matcher)
    assert guide.done()
    assert matcher.consumed == [7, 8]


@pytest.mark.parametrize("when", ["compiling", "resuming"])
def test_compile_passes_on_the_error(guides: OutputGuides, compiler: FakeCompiler, when: str) -> None:
    guide = guides.compile(ANY, None, [66])
    if when == "compiling":
        compiler.futures[0].set_exception(ConfigError("too complex"))
    else:
        compiler.futures[0].set_result(FakeMatcher(5))
    with pytest.raises(ConfigError, match="too complex" if when == "compiling" else "no match"):
        guide.result()


def test_compile_refuses_a_block_that_cannot_be_enforced(guides: OutputGuides) -> None:
    with pytest.raises(ConfigError, match="outside of the vocabulary"):
        guides.compile(None, Reasoning(end=(N_VOCAB,), opened=True))


def test_fill_returns_the_mask_of_the_matcher(guides: OutputGuides, compiler: FakeCompiler) -> None:
    assert allowed(guides.fill(compiled(guides, compiler, FakeMatcher(40)))) == [40]


def test_fill_allows_the_opening_of_a_block_too(guides: OutputGuides, compiler: FakeCompiler) -> None:
    guide = compiled(guides, compiler, FakeMatcher(40), start=(OPEN,), end=(CLOSE,))
    assert allowed(guides.fill(guide)) == [OPEN, 40]


def test_fill_inside_a_block_bans_only_the_end(guides: OutputGuides, compiler: FakeCompiler) -> None:
    guide = compiled(guides, compiler, FakeMatcher(40), end=(CLOSE,), opened=True)
    assert allowed(guides.fill(guide)) == [i for i in range(N_VOCAB) if i != EOG]
    assert not guide.may_stop, "the constrained output is still to come"
    guide.commit(CLOSE)
    assert allowed(guides.fill(guide)) == [40]
    assert guide.may_stop


def test_fill_forces_the_end_of_a_spent_budget(guides: OutputGuides) -> None:
    guide = guides.compile(None, Reasoning(end=(CLOSE,), opened=True, budget=1)).result()
    assert guides.fill(guide) is None
    guide.commit(9)
    assert allowed(guides.fill(guide)) == [CLOSE]


def test_step_masks_keep_errors_in_their_places(guides: OutputGuides, compiler: FakeCompiler) -> None:
    class Broken(FakeMatcher):
        def fill(self, mask: TokenMask) -> None:
            raise ConfigError("too complex")

    sound, broken = compiled(guides, compiler, FakeMatcher(3)), compiled(guides, compiler, Broken(3))
    guides.begin([sound, None, broken])
    masks = guides.end()
    assert allowed(masks[0]) == [3]  # type: ignore[arg-type]
    assert masks[1] is None
    assert str(masks[2]) == "too complex"
    guides.begin([None, None])
    assert guides.end() == []
    guides.close()
