"""A deterministic 'model' without ggml, whose logits depend on what is really in the cells.

Each cell remembers the token and position written to it and a digest of everything before it *as read
through the cell table at that time*: like real keys and values, which depend on the whole context. Logits
are a function of all that is read back. A wrong, overwritten or stale cell so changes the text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.state_slots import StateSlots
from engine.cache.window_rows import WindowRows
from engine.config import SchedulerConfig
from engine.constraint.guide import OutputGuides
from engine.errors import ConfigError
from engine.scheduler.batch import BatchItem
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.sequence import SequenceState
from engine.types import FinishReason, InferenceParameters, Request, StepOutput, Token

N_VOCAB = 40
EOG = 0


def digest(*parts: object) -> int:
    """A 64-bit number that depends on every part, the same in each process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def logits_of(state: int) -> array[float]:
    """Logits from a digest: 8 scattered tokens stand out, end-of-generation rarely does."""
    row = array("f", bytes(4 * N_VOCAB))
    for i in range(8):
        row[(state >> (8 * i)) % N_VOCAB] += 1 + i
    if state % 4:
        row[EOG] = -1
    return row


class Model:
    """The same model without cells: what every text is compared with.

    original_context_length: sequences of more tokens have other digests from their first token on (0: none).
    """

    def __init__(self, original_context_length: int = 0) -> None:
        self.original_context_length = original_context_length

    def state(self, tokens: Sequence[int]) -> int:
        state = int(0 < self.original_context_length < len(tokens))
        for position, token in enumerate(tokens):
            state = digest(state, token, position)
        return state

    def continuation(
        self, prompt: Sequence[int], params: InferenceParameters, n_ctx: int
    ) -> tuple[list[int], FinishReason]:
        """The generated ids of a greedy or seeded request that runs alone, and why it ends."""
        sampler = FakeSampler(params, N_VOCAB, {EOG}, prompt)
        state, out = self.state(prompt), []
        n_max = n_ctx - len(prompt)
        if params.max_tokens is not None:
            n_max = min(n_max, params.max_tokens)
        while len(out) < n_max:
            token = sampler.sample(memoryview(logits_of(state))).id
            state = digest(state, token, len(prompt) + len(out))
            out.append(token)
            if len(prompt) + len(out) == self.original_context_length + 1:
                state = self.state([*prompt, *out])
            stop = token in params.stop_token_ids or (token == EOG and not params.ignore_eos)
            if stop and len(out) > params.min_tokens:
                return out, FinishReason.STOP
        return out, FinishReason.LENGTH

    def shifted(
        self, prompt: Sequence[int], params: InferenceParameters, n_ctx: int, n_keep: int, n_discard: int = 0
    ) -> tuple[list[int], FinishReason]:
        """The same where the context shifts, as llama-server does it: one shift after the other."""
        assert params.max_tokens is not None
        sampler = FakeSampler(params, N_VOCAB, {EOG}, prompt)
        window, out = list(prompt), list[int]()
        while len(out) < params.max_tokens:
            if len(window) == n_ctx:  # one token is to be computed, and one cell is to stay free for the next
                n = max(0, min(n_keep, n_ctx - 4))
                window = window[:n] + window[n + (min(n_discard, n_ctx - 1 - n) or (n_ctx - 1 - n) // 2) :]
            out.append(sampler.sample(memoryview(logits_of(self.state(window)))).id)
            window.append(out[-1])
            stop = out[-1] in params.stop_token_ids or (out[-1] == EOG and not params.ignore_eos)
            if stop and len(out) > params.min_tokens:
                return out, FinishReason.STOP
        return out, FinishReason.LENGTH


class FakeRunner:
    """Keeps cells as described above, and refuses batches that a real runner could not compute.

    With slots it also keeps a state for each sequence, which it cannot take back, as recurrent layers do.
    With windows it also reads the rows of the last positions, as layers with a window do.
    """

    def __init__(
        self,
        n_cells: int,
        max_batch_tokens: int,
        original_context_length: int = 0,
        n_slots: int = 0,
        windows: WindowRows | None = None,
    ) -> None:
        self.windows = windows
        n_rows = windows.n_rows if windows is not None else 0
        self.rows: list[tuple[int, int, int] | None] = [None] * n_rows  # as `cells`
        self.slots: list[tuple[int, int]] = [(-1, 0)] * n_slots  # tokens, digest
        self.n_vocab = N_VOCAB
        self.original_context_length = original_context_length
        self.compute_ms = 0.0
        self.max_batch_tokens = max_batch_tokens
        self.cells: list[tuple[int, int, int] | None] = [None] * n_cells  # token, position, digest
        self.batches: list[list[BatchItem]] = []
        self.fail_next: Exception | None = None
        self.n_wrong = 0  # reads of cells that hold something else than they should
        self._logits: list[array[float]] = []  # one row per batch row, overwritten by each forward

    def forward(self, rows: Sequence[BatchItem]) -> int:
        assert rows
        assert sum(len(row.tokens) for row in rows) <= self.max_batch_tokens
        written = [cell for row in rows for cell in row.cells[row.n_past :]]
        assert len(set(written)) == len(written), "two tokens are written to one cell"
        for row in rows:
            assert len(row.cells) == row.n_past + len(row.tokens) > row.n_past
            assert set(row.cells[: row.n_past]).isdisjoint(written), "a cell is read and written in one batch"
        self.batches.append([row._replace(cells=row.cells[:]) for row in rows])
        n_logits = 0
        if self.fail_next is not None:
            for cell in written:  # half-done work
                self._write(cell, None)
            for row in rows:
                if self.slots:
                    self.slots[row.slot] = (-1, 0)
            error, self.fail_next = self.fail_next, None
            raise error
        if self.slots:
            used = [row.slot for row in rows]
            assert len(set(used)) == len(used), "two sequences have one slot"
        for row in rows:
            digests = self._advance(row)
            for p, token in enumerate(row.tokens, row.n_past):
                self._write(row.cells[p], (token, p, digest(self._read(row, p), token, p)))
            assert 0 <= row.logits <= len(row.tokens)
            for n in range(len(row.cells) - row.logits + 1, len(row.cells) + 1):
                if n_logits == len(self._logits):
                    self._logits.append(array("f", bytes(4 * N_VOCAB)))
                state = self._read(row, n)
                if self.slots and digests[n - row.n_past - 1] != state:
                    state = digest("wrong state", row.slot)
                self._logits[n_logits][:] = logits_of(state)
                n_logits += 1
        self.compute_ms = 1.0
        return n_logits

    def _advance(self, row: BatchItem) -> list[int]:
        """The recurrent state after each new token."""
        if not self.slots:
            return []
        assert 0 <= row.slot < len(self.slots)
        n, state = self.slots[row.slot] if row.n_past else (0, int(row.uses_long_rope))
        if n != row.n_past:
            state = digest("state after", n)
        digests = []
        for p, token in enumerate(row.tokens, row.n_past):
            state = digest(state, token, p)
            digests.append(state)
        self.slots[row.slot] = row.n_past + len(row.tokens), state
        return digests

    def copy(self, source: int, target: int) -> None:
        self.slots[target] = self.slots[source]

    def _write(self, cell: int, content: tuple[int, int, int] | None) -> None:
        self.cells[cell] = content
        if self.windows is not None:
            row = self.windows.row_of[cell]
            assert row >= 0, "a token is computed without a row"
            self.rows[row] = content

    def clear(self, cells: Sequence[int], rows: Sequence[int] = ()) -> None:
        for cell in cells:
            self.cells[cell] = None
        for row in rows:
            self.rows[row] = None

    def logits(self, i: int) -> memoryview:
        return memoryview(self._logits[i])

    def _wrong(self, *parts: object) -> int:
        self.n_wrong += 1
        return digest(*parts)

    def _read(self, row: BatchItem, n: int) -> int:
        """The digest of the first `n` positions as the cells hold them now."""
        state = int(row.uses_long_rope)
        for p in range(n):
            content = self.cells[row.cells[p]]
            if content is None:
                return self._wrong("empty cell", row.cells[p])
            token, position, stored = content
            state = digest(state, token, position)
            if stored != state or position != p:
                return self._wrong("wrong cell", content)
            if self.windows is not None and p >= n - self.windows.reach:
                number = self.windows.row_of[row.cells[p]]
                if number < 0 or self.rows[number] != content:
                    return self._wrong("wrong row", content)
        return state


class FakeSampler:
    """Greedy for temperature 0, else drawn by seed and index; bans as `engine.sampling.sampler.Sampler` does.

    With a repeat_penalty, tokens of the whole history are penalised.
    """

    def __init__(
        self,
        params: InferenceParameters,
        n_vocab: int,
        eog_ids: frozenset[int] | set[int],
        history: Sequence[int] = (),
        n_generated: int = 0,
        state: float | None = None,
    ) -> None:
        if params.temperature < 0:
            raise ValueError("temperature must not be negative")
        self.params, self.eog_ids = params, eog_ids
        self.history, self.n_generated, self.state = list(history), n_generated, state

    def sample(self, logits: memoryview, mask: memoryview | None = None) -> Token:
        row = list(logits)
        if self.params.ignore_eos or self.n_generated < self.params.min_tokens:
            for i in self.eog_ids:
                row[i] = float("-inf")
        if self.params.repeat_penalty != 1:
            for i in self.history:
                row[i] -= self.params.repeat_penalty
        if self.params.temperature:
            row = [x + digest(self.params.seed, self.n_generated, i) % 8 for i, x in enumerate(row)]
        if mask is not None:
            row = [x if mask[i // 32] >> i % 32 & 1 else float("-inf") for i, x in enumerate(row)]
        if max(row) == float("-inf"):
            raise ConfigError("every token is banned")
        best = max(range(len(row)), key=row.__getitem__)
        self.n_generated += 1
        self.history.append(best)
        state = None if self.state is None else self.state + 1
        self.state = state
        return Token(id=best, logprob=float(logits[best]), sampler_state=state)


GREEDY = InferenceParameters(temperature=0.0, max_tokens=8)


def make_scheduler(
    n_cells: int = 256,
    *,
    parallel: int = 8,
    n_ctx: int = 64,
    max_batch_tokens: int = 32,
    original_context_length: int = 0,
    guides: OutputGuides | None = None,
    checkpoints: int = 0,
    interval: int = 512,
    context_shift: bool = False,
    windows: WindowRows | None = None,
) -> tuple[Scheduler, FakeRunner]:
    """A scheduler on a fake runner; with checkpoints, on one whose layers are recurrent."""
    n_slots = parallel + checkpoints if checkpoints else 0
    runner = FakeRunner(n_cells, max_batch_tokens, original_context_length, n_slots, windows)
    slots = StateSlots(n_slots, runner.copy, interval) if n_slots else None
    config = SchedulerConfig(
        parallel=parallel,
        n_ctx=n_ctx,
        max_batch_tokens=max_batch_tokens,
        eog_ids=frozenset({EOG}),
        context_shift=context_shift,
    )
    return Scheduler(runner, CellPool(n_cells, slots, windows), config, FakeSampler, guides=guides), runner


def request(id: str, prompt: Sequence[int], **kwargs: object) -> Request:
    """A greedy request of 8 tokens, unless told otherwise."""
    kwargs.setdefault("params", GREEDY)
    return Request(id=id, prompt=list(prompt), **kwargs)  # type: ignore[arg-type]


class Outcome:
    """What a scheduler told about its requests."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.last: dict[str, StepOutput] = {}
        self.progress: dict[str, list[int]] = {}

    def add(self, emissions: list[StepOutput]) -> None:
        assert len({e.id for e in emissions}) == len(emissions), "one emission per session and step"
        for emission in emissions:
            assert emission.id not in self.last, "an emission after the end"
            self.tokens.setdefault(emission.id, []).extend(token.id for token in emission.tokens)
            if emission.processed is not None:
                self.progress.setdefault(emission.id, []).append(emission.processed)
            if emission.finish is not None:
                self.last[emission.id] = emission

    def finish(self, id: str) -> FinishReason | None:
        return self.last[id].finish if id in self.last else None


def drain(scheduler: Scheduler, outcome: Outcome | None = None, limit: int = 10_000) -> Outcome:
    """Step until nothing is left to do, checking every invariant after each step."""
    outcome = outcome or Outcome()
    for _ in range(limit):
        if not scheduler.has_work:
            return outcome
        outcome.add(scheduler.step())
        scheduler.check()
    raise AssertionError(f"still working after {limit} steps")


def states(scheduler: Scheduler) -> dict[str, str]:
    """The state of each sequence by id, in order of arrival; of a running one, prefill or decode."""
    return {
        s.id: s.state.name.lower()
        if s.state is not SequenceState.RUNNING
        else ("prefill" if s.n_pending > 1 else "decode")
        for s in scheduler.queues
    }


def picture(rows: Sequence[BatchItem], n_cells: int) -> list[str]:
    """The attention mask of a batch as text, one line per new token: x where it sees a cell."""
    lines = []
    for row in rows:
        for p in range(row.n_past, row.n_past + len(row.tokens)):
            visible = set(row.cells[: p + 1])
            lines.append("".join("x" if cell in visible else "." for cell in range(n_cells)))
    return lines
