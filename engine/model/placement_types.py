"""The placement plan: its inputs (sizes of parts, devices), and the plan as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from engine.host import host_memory
from engine.units import format_bytes


class Part(NamedTuple):
    """Bytes of one layer, of the input embedding, or of the output.

    experts, experts_mapped: what of `weights` and `mapped` is in matrices of experts.
    """

    weights: int
    kv_cell: int = 0  # cache bytes for each token
    mapped: int = 0  # of the weights: what stays in the mapped file when the part is on the CPU
    experts: int = 0
    experts_mapped: int = 0

    def plus(self, weights: int, mapped: int, *, is_expert: bool = False) -> Part:
        """The same with one more tensor of so many bytes."""
        experts = (weights, mapped) if is_expert else (0, 0)
        return Part(
            self.weights + weights,
            self.kv_cell,
            self.mapped + mapped,
            self.experts + experts[0],
            self.experts_mapped + experts[1],
        )


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The memory that a model needs, in bytes.

    compute: working memory on each device that has a layer; compute_cell: additional for each cell of the
    cache, where attention has masks or materializes its scores; compute_input: on the CPU if it has no layer;
    compute_last: on a device with the last layer only, whose feed-forward sees few rows. input_moves: size of
    the input embedding on the first device where no layer is left on the CPU; None: it stays on the CPU.
    states: of recurrent layers, in the host's memory.
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

    @property
    def stack(self) -> tuple[Part, ...]:
        """The layers and the output, in the order in which devices share them."""
        return (*self.layers, self.output)

    @property
    def n_with_experts(self) -> int:
        """Leading layers among which are all that have experts."""
        return max((i + 1 for i, part in enumerate(self.layers) if part.experts), default=0)

    def with_cpu_experts(self, n: int, cpu: str) -> Needs:
        """The same model with the experts of the first `n` layers on the device `cpu`."""
        weights, _, mapped, *_ = self.elsewhere.get(cpu, Part(0))
        layers = list(self.layers)
        for i, (all_, kv_cell, all_mapped, experts, experts_mapped) in enumerate(layers[:n]):
            layers[i] = Part(all_ - experts, kv_cell, all_mapped - experts_mapped)
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
        """From one of ggml's devices. The CPU, and devices that report no size, get the host's memory."""
        free, total = device.free, device.total
        if device.type == "cpu" or total == 0:
            free, total = host or host_memory()
        return cls(name=device.name, backend=device.backend, type=device.type, free=free, total=total)

    @property
    def margin(self) -> int:
        """Left unused where we choose the size: for other programs, fragmentation, errors of our estimate."""
        return min(512 << 20, self.free // 10)

    @property
    def spare(self) -> int:
        """Left unused when the cache grows: the host's memory is shared, and caches the model file."""
        return self.margin if self.type == "gpu" else self.free // 4


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one device gets, in bytes. mapped: part of the file, which the kernel can drop and read again."""

    device: DeviceInfo
    parts: tuple[int, ...] = ()  # indices of the stack
    weights: int = 0
    mapped: int = 0
    kv_cell: int = 0
    n_cells: int = 0
    compute: int = 0
    compute_cell: int = 0
    states: int = 0  # of recurrent layers

    @property
    def kv(self) -> int:
        return self.kv_cell * self.n_cells + self.states

    @property
    def needed(self) -> int:
        return self.weights + self.kv + self.working

    @property
    def working(self) -> int:
        return self.compute + self.compute_cell * self.n_cells

    @property
    def per_cell(self) -> int:
        """Bytes that one more cell takes."""
        return self.kv_cell + self.compute_cell

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.free


@dataclass(frozen=True, kw_only=True)
class Plan:
    """layers[i]: name of the device of layer i, the output being the last. notes: for the log.

    cpu_experts: the experts of so many layers are on the CPU, from the first, wherever their layers are.
    """

    layers: tuple[str, ...]
    n_cells: int
    usage: tuple[Usage, ...]
    notes: tuple[str, ...] = ()
    cpu_experts: int = 0

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
        text = [*(line.rstrip() for line in lines), f"cache: {self.n_cells} cells"]
        if self.cpu_experts:
            layers = spans(tuple(range(self.cpu_experts)), len(self.layers) - 1)
            text.append(f"experts on the CPU: those of layers {layers}")
        text += self.notes
        if (over_shared := shared_overflow(self.usage)) is not None:
            sharing = [u.device.name for u in self.usage if u.device.type in ("igpu", "cpu")]
            text.append(f"{' and '.join(sharing)} share memory: {format_bytes(over_shared)} too much")
        return "\n".join(text)


def estimate_compute(*, rows: int, n_embd: int, n_ff: int, n_vocab: int, n_outputs: int) -> int:
    """Bytes of a device's working memory besides attention's scores and masks: the residual and its norm,
    three times the feed-forward's width, and the logits."""
    return 4 * (rows * (2 * n_embd + 3 * n_ff) + n_outputs * n_vocab)


def estimate_compute_cell(*, rows: int, n_head: int, attention: str) -> int:
    """Bytes for each cell of the cache: an F16 mask, and with explicit attention F32 scores."""
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
    """Bytes that integrated GPUs and the CPU together need beyond the memory that they share."""
    sharing = [u for u in usage if u.device.type == "igpu"]
    cpu = next(u for u in usage if u.device.type == "cpu")
    over = cpu.needed + sum(u.needed for u in sharing) - cpu.device.free
    return over if sharing and over > 0 else None
