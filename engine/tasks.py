"""Work besides streams, done in steps between those of the scheduler.

Streams come first where cells are short: work waits for room, and gives back what it has when they need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.embedding import Embedder, Embedding
from engine.errors import ConfigError, DeviceError, EngineError, OutOfMemoryError
from engine.scoring import Scorer
from engine.work import AnyWork, Embed, Embedded, Failure, News, Piece, Score, Scored

if TYPE_CHECKING:
    from engine.model import Model


class Tasks:
    """All work of one model: `submit`, then `step` until `has_work` is false."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._embedder = Embedder(model)
        self._scorer = Scorer(model)
        self._left: dict[str, int] = {}  # inputs of an Embed whose vectors are still to come
        self._news: list[News] = []

    @property
    def has_work(self) -> bool:
        return bool(self._left or self._scorer.has_work or self._news)

    def submit(self, id: str, work: AnyWork) -> None:
        """Take an order. What cannot be done is told by the next step."""
        try:
            match work:
                case Embed(inputs, pooling):
                    if not inputs:
                        raise ConfigError("there is no input to embed")
                    self._embedder.submit(id, inputs, pooling)
                    self._left[id] = len(inputs)
                case Score(tokens, top):
                    self._scorer.submit(id, tokens, top)
                case _:
                    raise ConfigError("this work is not supported yet")
        except EngineError as error:
            self._news.append(News(id, failure=failure_of(error)))

    def cancel(self, id: str) -> None:
        """Drop an order. Nothing more is told of it."""
        self._embedder.cancel(id)
        self._scorer.cancel(id)
        self._left.pop(id, None)
        self._news = [news for news in self._news if news.id != id]

    def make_way(self) -> None:
        """Before a step of the scheduler: see that no stream ends for want of a cell."""
        for worker in (self._embedder, self._scorer):
            worker.make_way(self.model.params.parallel)

    def step(self, busy: bool) -> list[News]:
        """Do a part of what there is. busy: streams run, and may need cells or give some back."""
        news, self._news = self._news, []
        reserve = self.model.params.parallel if busy else 0
        if self._embedder.has_work:
            news += self._embed(reserve)
        if self._scorer.has_work:
            news += self._score(reserve)
        return news

    def _score(self, reserve: int) -> list[News]:
        done = self._scorer.step(reserve)
        if done is None:
            return []
        id, found = done
        if isinstance(found, Exception):
            return [News(id, failure=failure_of(found))]
        rows, last = found
        result = Scored(b"", rows.shape[-1]) if last else None
        return [News(id, [Piece(0, rows.astype("<f8", copy=False).tobytes())], result)]

    def _embed(self, reserve: int) -> list[News]:
        done = self._embedder.step(reserve)
        if done is None:
            return []
        news: dict[str, News] = {}
        for id, found in done:
            told = news.setdefault(id, News(id, []))
            if isinstance(found, Embedding):
                told.pieces.append(Piece(found.input, found.vector.astype("<f4", copy=False).tobytes()))
                self._left[id] -= 1
                if not self._left[id]:
                    told.result = Embedded([], found.vector.shape[-1])
                    del self._left[id]
            else:
                told.failure = failure_of(found)
                del self._left[id]
        # A long input may take many steps: each is a sign of life.
        return list(news.values()) or [News(next(iter(self._left)))]


def failure_of(error: Exception) -> Failure:
    """An error as it is told. One that ends everything is raised."""
    if isinstance(error, DeviceError) and not isinstance(error, OutOfMemoryError):
        raise error
    return Failure(type(error).__name__, str(error) or type(error).__name__)
