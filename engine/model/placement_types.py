"""The placement plan: its inputs (sizes of parts, devices), and the plan as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from engine.config import ModelParameters
from engine.host import host_memory
from engine.hparams import HParams
from engine.units import format_bytes

DEFAULT_CHECKPOINTS = 64


class Part(NamedTuple):
    """Bytes of one layer, of the input embedding, or of the output.

    experts, experts_mapped: what of `weights` and `mapped` is in matrices of experts. window_row: cache bytes
    for each row, of a layer that keeps only a window.
    """

    weights: int
    kv_cell: int = 0  # cache bytes for each token
    mapped: int = 0  # of the weights: what stays in the mapped file when the part is on the CPU
    experts: int = 0
    experts_mapped: int = 0
    window_row: int = 0

    def plus(self, weights: int, mapped: int, *, is_expert: bool = False) -> Part:
        """The part with one more tensor of this many bytes."""
        experts = (weights, mapped) if is_expert else (0, 0)
        return self._replace(
            weights=self.weights + weights,
            mapped=self.mapped + mapped,
            experts=self.experts + experts[0],
            experts_mapped=self.experts_mapped + experts[1],
        )

    def kv(self, n_cells: int, n_rows: int) -> int:
        """Bytes of its cache."""
        return self.kv_cell * n_cells + self.window_row * n_rows


class WindowSize(NamedTuple):
    """How many rows layers with a window get (`engine.cache.window_rows`).

    one: rows that one sequence holds. running: rows of all that run, with the tokens of a batch. checkpoints:
    how many windows are kept for later requests; None: an eighth of the cells is, at least two windows.
    """

    one: int
    running: int
    checkpoints: int | None = None

    def rows(self, n_cells: int) -> int:
        for_checkpoints = max(2 * self.one, n_cells // 8)
        if self.checkpoints is not None:
            for_checkpoints = self.checkpoints * self.one
        return min(self.running + for_checkpoints, n_cells)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The memory that a model needs, in bytes.

    compute: working memory on each device that has a layer; compute_cell: additional for each cell of the
    cache, where attention has masks or materializes its scores; compute_input: on the CPU if it has no layer;
    compute_last: on a device with the last layer only, whose feed-forward sees few rows. input_moves: size of
    the input embedding on the first device where no layer is left on the CPU; None: it stays on the CPU.
    states: of recurrent layers, in the host's memory.
    windows: of layers that keep only a window; None: there are none.
    elsewhere: by device, weights that are there wherever their layers are; compute_elsewhere: working memory
    on a device that has nothing else.
    """

    input: Part
    layers: tuple[Part, ...]
    output: Part
    compute: int | Mapping[str, int] = 0
    compute_cell: Mapping[str, int] = field(default_factory=dict)
    compute_input: int | None = None
    compute_last: int | None = None
    input_moves: int | None = None
    states: int = 0
    mask_cell: int = 0  # of compute_cell, what a mask takes
    elsewhere: Mapping[str, Part] = field(default_factory=dict)
    compute_elsewhere: int = 0
    windows: WindowSize | None = None

    def n_rows(self, n_cells: int) -> int:
        """Rows of layers with a window for this many cells; as many as cells if they cache everything."""
        return n_cells if self.windows is None else self.windows.rows(n_cells)

    @property
    def stack(self) -> tuple[Part, ...]:
        """The layers and the output, in the order in which devices share them."""
        return (*self.layers, self.output)

    @property
    def n_with_experts(self) -> int:
        """The number of leading layers that include all layers with experts."""
        return max((i + 1 for i, part in enumerate(self.layers) if part.experts), default=0)

    def with_cpu_experts(self, n: int, cpu: str) -> Needs:
        """The same model with the experts of the first `n` layers on the device `cpu`."""
        weights, _, mapped, *_ = self.elsewhere.get(cpu, Part(0))
        layers = list(self.layers)
        for i, part in enumerate(layers[:n]):
            experts, experts_mapped = part.experts, part.experts_mapped
            layers[i] = part.plus(-experts, -experts_mapped, is_expert=True)
            weights, mapped = weights + experts, mapped + experts_mapped
        elsewhere = {**self.elsewhere, cpu: Part(weights, 0, mapped)}
        return replace(self, layers=tuple(layers), elsewhere=elsewhere)

    def elsewhere_on(self, device: str) -> Part:
        return self.elsewhere.get(device, Part(0))

    def compute_on(self, device: str) -> int:
        return self.compute if isinstance(self.compute, int) else self.compute.get(device, 0)

    def compute_cell_on(self, device: str) -> int:
        return self.compute_cell.get(device, 0)


class _Described(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def free(self) -> int: ...
    @property
    def total(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """A device as the plan sees it. type: cpu, gpu, igpu or accel. free, total: bytes."""

    name: str
    backend: str
    type: str
    free: int
    total: int

    @classmethod
    def of(cls, device: _Described, host: tuple[int, int] | None = None) -> DeviceInfo:
        """From one of ggml's devices. The CPU, and devices that report no size, have the host's memory."""
        free, total = device.free, device.total
        if device.type == "cpu" or total == 0:
            free, total = host or host_memory()
        return cls(name=device.name, backend=device.backend, type=device.type, free=free, total=total)

    def without(self, nbytes: int) -> DeviceInfo:
        """The same device with this much of its memory in use."""
        return replace(self, free=max(self.free - nbytes, 0)) if nbytes else self

    @property
    def margin(self) -> int:
        """Left unused if we choose the size: for other programs, fragmentation, errors of our estimate."""
        return min(512 << 20, self.free // 10)

    @property
    def spare(self) -> int:
        """Left unused when the cache grows: the host's memory is shared, and caches the model file."""
        return self.margin if self.type == "gpu" else self.free // 4


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one device gets, in bytes. mapped: part of the file, which the kernel can drop and read again.

    kv_cell, window_row: of the cache, for each cell, and for each row of layers that keep only a window.
    """

    device: DeviceInfo
    parts: tuple[int, ...] = ()  # indices of the stack
    weights: int = 0
    mapped: int = 0
    kv_cell: int = 0
    window_row: int = 0
    n_cells: int = 0
    n_rows: int = 0
    compute: int = 0
    compute_cell: int = 0
    compute_row: int = 0  # of a second mask, where some layers keep only a window
    states: int = 0  # of recurrent layers

    @property
    def kv(self) -> int:
        return self.kv_cell * self.n_cells + self.window_row * self.n_rows + self.states

    @property
    def needed(self) -> int:
        return self.weights + self.kv + self.working

    @property
    def working(self) -> int:
        only_windows = self.window_row and not self.kv_cell
        n_cells = self.n_rows if only_windows else self.n_cells
        return self.compute + self.compute_cell * n_cells + self.compute_row * self.n_rows

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.free


@dataclass(frozen=True, kw_only=True)
class Plan:
    """layers[i]: name of the device of layer i, the output being the last. notes: for the log.

    cpu_experts: the experts of so many layers are on the CPU, from the first, wherever their layers are.
    n_rows: of layers with a window; as many as cells where they keep everything.
    draft: the plan of the draft model, for which the devices have that much less.
    """

    layers: tuple[str, ...]
    n_cells: int
    n_rows: int
    usage: tuple[Usage, ...]
    notes: tuple[str, ...] = ()
    cpu_experts: int = 0
    draft: Plan | None = None

    @property
    def has_windows(self) -> bool:
        """Whether some layers have fewer rows than there are cells."""
        return self.n_rows < self.n_cells

    def resized(self, n_cells: int, n_rows: int) -> Plan:
        """The same placement with a cache of another size."""
        usage = tuple(replace(u, n_cells=n_cells, n_rows=n_rows) for u in self.usage)
        return replace(self, n_cells=n_cells, n_rows=n_rows, usage=usage)

    @property
    def total(self) -> int:
        """Bytes on all devices together, including mapped weights and the draft model."""
        own = sum(u.needed + u.mapped for u in self.usage)
        return own if self.draft is None else own + self.draft.total

    @property
    def fits(self) -> bool:
        return all(u.fits for u in self.usage) and shared_overflow(self.usage) is None

    @property
    def gpu_layers(self) -> int:
        """Layers (output included) that are not on the CPU."""
        cpu = {u.device.name for u in self.usage if u.device.type == "cpu"}
        return sum(name not in cpu for name in self.layers)

    def table(self) -> str:
        """The plan as text."""
        head = ("device", "backend", "layers", "weights", "mapped", "cache", "compute", "needed", "free", "")
        rows: list[tuple[str, ...]] = [head]
        for u in self.usage:
            over = "" if u.fits else f"{format_bytes(u.needed - u.device.free)} too much"
            sizes = (format_bytes(n) for n in (u.weights, u.mapped, u.kv, u.working, u.needed, u.device.free))
            where = spans(u.parts, len(self.layers) - 1)
            rows.append((u.device.name, u.device.backend, where, *sizes, over))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        justify = [str.ljust] * 3 + [str.rjust] * 7
        lines = ("  ".join(f(c, w) for f, c, w in zip(justify, row, widths, strict=True)) for row in rows)
        cache = f"cache: {self.n_cells} cells"
        if self.has_windows:
            cache += f", {self.n_rows} in layers with a window"
        text = [*(line.rstrip() for line in lines), cache]
        if self.cpu_experts:
            layers = spans(tuple(range(self.cpu_experts)), len(self.layers) - 1)
            text.append(f"experts on the CPU: those of layers {layers}")
        text += self.notes
        if (over_shared := shared_overflow(self.usage)) is not None:
            sharing = [u.device.name for u in self.usage if u.device.type in ("igpu", "cpu")]
            text.append(f"{' and '.join(sharing)} share memory: {format_bytes(over_shared)} too much")
        if self.draft is not None:
            text += ["draft model:", self.draft.table()]
        return "\n".join(text)


def estimate_compute(*, rows: int, n_embd: int, n_ff: int, n_vocab: int, n_outputs: int) -> int:
    """Bytes of a device's working memory besides attention's scores and masks: the residual and its norm,
    three times the feed-forward's width, and the logits.
    """
    return 4 * (rows * (2 * n_embd + 3 * n_ff) + n_outputs * n_vocab)


def estimate_compute_cell(*, rows: int, n_head: int, attention: str) -> int:
    """Bytes per cell of the cache: an F16 mask and, with explicit attention, F32 scores."""
    if attention == "paged":
        return 0
    return rows * (2 + 4 * n_head * (attention == "explicit"))


def spans(parts: tuple[int, ...], n_layers: int) -> str:
    """Indices of the stack as text, such as `0-3, 5, output`."""
    runs: list[list[int]] = []
    for i in parts:
        if i < n_layers and runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    names = ("output" if a == n_layers else f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return ", ".join(names) or "none"


def shared_overflow(usage: Sequence[Usage]) -> int | None:
    """Bytes that integrated GPUs and the CPU together need beyond their shared memory."""
    sharing = [u for u in usage if u.device.type == "igpu"]
    cpu = next(u for u in usage if u.device.type == "cpu")
    over = cpu.needed + sum(u.needed for u in sharing) - cpu.device.free
    return over if sharing and over > 0 else None


def number_of_slots(hp: HParams, params: ModelParameters, free: int) -> int:
    """Slots for the recurrent states of running sequences and for checkpoints; 0 in a model without.

    free: bytes of the host's memory. Of it, or of the limit of params, checkpoints take a tenth at most,
    unless params say how many.
    """
    nbytes = hp.state_bytes
    if not nbytes:
        return 0
    checkpoints = params.checkpoints
    if checkpoints is None:
        free = free if params.memory_limit is None else min(free, params.memory_limit)
        checkpoints = min(DEFAULT_CHECKPOINTS, free // 10 // nbytes)
    return params.parallel + max(checkpoints, 1)
