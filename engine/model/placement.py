"""Which layer is offloaded to which device, and how many cells the KV cache gets.

A pure function of sizes, devices and parameters; nothing here touches ggml. The last layers are offloaded to
GPUs, and the output counts as one more layer after them; the input embedding stays on the CPU, and a layer's
cache is on the layer's device. Several GPUs share the layers in order, filled evenly or as `tensor_split`
says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from engine.config import MAX_CELLS, ModelParameters
from engine.errors import ConfigError, DeviceError, OutOfMemoryError
from engine.model.placement_types import (
    DeviceInfo,
    Needs,
    Part,
    Plan,
    Usage,
    estimate_compute,
    shared_overflow,
    spans,
)
from engine.units import format_bytes

__all__ = ["DeviceInfo", "Needs", "Part", "Plan", "estimate_compute", "plan", "select_gpus"]

# Where two backends offer one card, the first of these gets it.
BACKEND_ORDER = ("cuda", "rocm", "hip", "musa", "metal", "mtl", "sycl", "vulkan", "clblast", "opencl")
CELL_STEP = 32  # the sizes of pools that we choose are multiples of this


def plan(needs: Needs, devices: Sequence[DeviceInfo], params: ModelParameters, n_ctx: int) -> Plan:
    """Place a model whose longest session has `n_ctx` tokens.

    DeviceError if a GPU is required and there is none, OutOfMemoryError (its notes hold the table) if the
    requested layers or one whole session do not fit, ConfigError for parameters that contradict each other.
    """
    if params.memory_limit is not None:
        devices = [replace(d, free=min(d.free, params.memory_limit)) for d in devices]
    cpu = next((d for d in devices if d.type == "cpu"), None)
    if cpu is None:
        raise DeviceError("ggml reports no CPU device; the installation is damaged")
    gpus = select_gpus(devices, params)
    n_stack = len(needs.stack)
    n_layers = params.gpu_layers if isinstance(params.gpu_layers, int) else n_stack
    if n_layers < 0:
        raise ConfigError(f"gpu_layers is {n_layers}; it must be 0 or more, all, or auto")
    if params.use_gpu is True and n_layers == 0:
        raise ConfigError("use_gpu is true, but gpu_layers is 0; omit one of them")
    session = params.context_size or 1
    if params.kv_cells is not None and params.kv_cells < session:
        raise ConfigError(f"kv_cells is {params.kv_cells}, less than one session of {session} tokens")
    n_layers = min(n_layers, n_stack) if gpus else 0
    planner = _Planner(needs, cpu, gpus, params, n_ctx).with_cpu_experts(n_cpu_experts(needs, params))
    flexible = params.gpu_layers == "auto" or (params.gpu_layers == "all" and params.use_gpu == "auto")
    notes = []
    if not gpus and params.use_gpu == "auto" and params.gpu_layers != 0:
        notes.append("no GPU found: all layers are on the CPU")
    if params.use_gpu is False and isinstance(params.gpu_layers, int) and params.gpu_layers:
        notes.append("gpu_layers has no effect, since use_gpu is false")
    if params.cpu_experts and not needs.n_with_experts:
        notes.append("cpu_moe and n_cpu_moe have no effect: the model has no experts")
    if flexible and gpus:
        fitting = planner.most_layers(may_move_experts=params.cpu_experts is None)
        if fitting is not None:
            n_fitting, planner = fitting
            if n_fitting < n_layers:
                notes.append(f"{n_fitting} of {n_layers} layers fit on the GPU: the others are on the CPU")
            elif planner.cpu_experts and params.cpu_experts is None:
                notes.append("not all experts fit on the GPU: the others are on the CPU")
            n_layers = n_fitting
    plan = replace(planner.final(n_layers), notes=tuple(notes))
    _check_limit(plan, params.memory_limit)
    return plan


def _check_limit(plan: Plan, limit: int | None) -> None:
    """Raises OutOfMemoryError if the devices together would hold more than `limit` bytes."""
    needed = plan.total
    if limit is None or needed <= limit:
        return
    text = (
        f"the limit leaves {format_bytes(limit)} of memory ({limit} bytes), but the model needs "
        f"{format_bytes(needed)} ({needed} bytes)"
    )
    error = OutOfMemoryError(text, device="", needed=needed, free=limit)
    error.add_note(plan.table())
    raise error


def n_cpu_experts(needs: Needs, params: ModelParameters) -> int:
    """The number of layers whose experts the parameters require on the CPU."""
    n = needs.n_with_experts
    return n if params.cpu_experts == "all" else min(params.cpu_experts or 0, n)


def select_gpus(devices: Sequence[DeviceInfo], params: ModelParameters) -> list[DeviceInfo]:
    """The devices besides the CPU that may get layers. Raises DeviceError if a required one is missing."""
    gpus = [d for d in devices if d.type in ("gpu", "igpu")]
    if params.devices:
        selected = []
        for name in params.devices:
            match = [d for d in devices if d.name.lower() == name.lower()]
            if not match:
                raise DeviceError(f"there is no device {name}; available: {_names(devices)}")
            selected += [d for d in match if d.type != "cpu" and d not in selected]
        if selected and params.use_gpu is False:
            raise ConfigError(f"device {selected[0].name} is requested, but use_gpu is false")
    elif params.use_gpu is False:
        selected = []
    else:
        selected = _best(gpus)
    if params.use_gpu is True and not selected:
        what = f"--device {' '.join(params.devices)}" if params.devices else "use_gpu is true"
        raise DeviceError(
            f"{what}, but there is no usable GPU (available: {_names(devices)}); "
            "build with a GPU backend (GGSERVE_BACKENDS), check its driver, or set use_gpu to auto or false"
        )
    if params.tensor_split and selected:
        split = params.tensor_split
        if len(split) > len(selected) or min(split) < 0 or not 0 < sum(split) < float("inf"):
            raise ConfigError(f"tensor_split {list(split)} is not valid for {len(selected)} devices")
    return selected


def _best(gpus: list[DeviceInfo]) -> list[DeviceInfo]:
    """The discrete GPUs of one backend, else the integrated ones; and all remote ones."""
    remote = [d for d in gpus if d.backend.lower() == "rpc"]
    local = [d for d in gpus if d not in remote]
    local = [d for d in local if d.type == "gpu"] or local

    def rank(device: DeviceInfo) -> int:
        name = device.backend.lower()
        return BACKEND_ORDER.index(name) if name in BACKEND_ORDER else len(BACKEND_ORDER)

    best = min(map(rank, local), default=0)
    return [d for d in local if rank(d) == best] + remote


def _names(devices: Sequence[DeviceInfo]) -> str:
    return ", ".join(d.name for d in devices) or "none"


class _Planner:
    def __init__(
        self, needs: Needs, cpu: DeviceInfo, gpus: list[DeviceInfo], params: ModelParameters, n_ctx: int
    ) -> None:
        self.needs, self.cpu, self.gpus, self.params, self.n_ctx = needs, cpu, gpus, params, n_ctx
        self.least_cells = params.kv_cells if params.kv_cells is not None else n_ctx
        self.cpu_experts = 0

    def with_cpu_experts(self, n: int) -> _Planner:
        """A planner that leaves the experts of the first `n` layers on the CPU."""
        if n == self.cpu_experts or not self.gpus:
            return self
        needs = self.needs.with_cpu_experts(n, self.cpu.name)
        planner = _Planner(needs, self.cpu, self.gpus, self.params, self.n_ctx)
        planner.cpu_experts = n
        return planner

    def most_layers(self, *, may_move_experts: bool) -> tuple[int, _Planner] | None:
        """How many layers fit with the smallest cache, with a margin if possible, and the planner of that.

        may_move_experts: experts go to the CPU before whole layers do. None: not even no layer fits.
        """
        for margin in (True, False):
            for n in range(len(self.needs.stack), -1, -1):
                planner = self.fewest_cpu_experts(n, margin) if may_move_experts else self
                if planner is not None and planner.place(n, self.least_cells, margin=margin) is not None:
                    return n, planner
        return None

    def fewest_cpu_experts(self, n_gpu: int, margin: bool) -> _Planner | None:
        """The planner that leaves the fewest experts on the CPU and fits `n_gpu` layers."""

        def fits(n: int) -> bool:
            planner = self.with_cpu_experts(n)
            return planner.place(n_gpu, self.least_cells, margin=margin) is not None

        n_most = self.needs.n_with_experts
        if fits(self.cpu_experts):
            return self
        if n_most <= self.cpu_experts or not fits(n_most):
            return None
        return self.with_cpu_experts(bisect_left(range(n_most), True, key=fits))

    def final(self, n_gpu: int) -> Plan:
        """The plan with `n_gpu` layers on GPUs. Raises OutOfMemoryError if it does not fit."""
        plan = self.place(n_gpu, self.least_cells) or self.forced(n_gpu, self.least_cells)
        if not plan.fits:
            self.refuse(plan, n_gpu)
        if self.params.kv_cells is not None:
            return plan
        return self.grow(plan)

    def grow(self, plan: Plan) -> Plan:
        """The plan with as many cells as parallel sessions can use, as far as memory allows.

        Mapped weights count: without memory for them every step would read the file again.
        """
        most = min(self.params.parallel * self.n_ctx, MAX_CELLS)
        if self.has_room(self.resized(plan, most)):
            return self.resized(plan, most)
        steps = range(-(-most // CELL_STEP))
        n = bisect_left(steps, True, key=lambda i: not self.has_room(self.resized(plan, i * CELL_STEP)))
        return self.resized(plan, max((n - 1) * CELL_STEP, self.n_ctx))

    def resized(self, plan: Plan, n_cells: int) -> Plan:
        return plan.resized(n_cells, self.needs.n_rows(n_cells))

    def has_room(self, plan: Plan) -> bool:
        """Whether the devices with a cache keep their spare memory, and all stay below the limit."""
        limit = self.params.memory_limit
        if limit is not None and plan.total > limit:
            return False
        cpu = next(u for u in plan.usage if u.device.type == "cpu")
        igpus = [u for u in plan.usage if u.device.type == "igpu" and u.parts]
        groups = [[u] for u in plan.usage if u.kv_cell or u.window_row] + ([[cpu, *igpus]] if igpus else [])
        return all(
            sum(u.needed + u.mapped for u in group) <= group[0].device.free - group[0].device.spare
            for group in groups
        )

    def place(self, n_gpu: int, n_cells: int, *, margin: bool = False) -> Plan | None:
        """A plan that fits, or None. GPUs are filled evenly, so that none reaches its limit early."""
        if self.params.tensor_split or len(self.gpus) < 2 or not n_gpu:
            plan = self.forced(n_gpu, n_cells)
            return plan if self.fits(plan, margin) else None
        for percent in range(1, 101):
            counts = self.fill(n_gpu, n_cells, percent, margin)
            if counts is not None:
                plan = self.build(counts, n_cells)
                return plan if self.fits(plan, margin) else None
        return None

    def fits(self, plan: Plan, margin: bool) -> bool:
        if not margin:
            return plan.fits
        tight = [replace(u.device, free=u.device.free - u.device.margin) for u in plan.usage]
        usage = tuple(replace(u, device=d) for u, d in zip(plan.usage, tight, strict=True))
        return replace(plan, usage=usage).fits

    def fill(self, n_gpu: int, n_cells: int, percent: int, margin: bool) -> list[int] | None:
        """Layers for each GPU in order if each is filled to `percent` at most; None if some remain."""
        stack, n_rows = self.needs.stack, self.needs.n_rows(n_cells)
        i = len(stack) - n_gpu
        counts: list[int] = []
        moved = (self.needs.input_moves or 0) if i == 0 else 0
        for gpu in self.gpus:
            usable = gpu.free - (gpu.margin if margin else 0)
            room = usable * percent // 100 - self.needs.compute_on(gpu.name)
            room -= self.needs.elsewhere_on(gpu.name).weights
            room -= self.needs.compute_cell_on(gpu.name) * n_cells + moved * (not counts)
            room -= self.compute_row(gpu.name, stack) * n_rows
            first = i
            while i < len(stack) and (cost := stack[i].weights + stack[i].kv(n_cells, n_rows)) <= room:
                room -= cost
                i += 1
            counts.append(i - first)
        return counts if i == len(stack) else None

    def forced(self, n_gpu: int, n_cells: int) -> Plan:
        """A plan split by `tensor_split`, else by free memory, whether it fits or not."""
        shares = list(self.params.tensor_split) or [float(max(d.free, 1)) for d in self.gpus]
        shares += [0.0] * (len(self.gpus) - len(shares))
        counts, before, done = [], 0.0, 0
        for share in shares:
            before += share
            until = round(n_gpu * before / sum(shares))
            counts.append(until - done)
            done = until
        return self.build(counts, n_cells)

    def build(self, counts: list[int], n_cells: int) -> Plan:
        stack, n_rows = self.needs.stack, self.needs.n_rows(n_cells)
        i = len(stack) - sum(counts)
        names = [self.cpu.name] * i
        cpu_parts = tuple(range(i))
        # With no layer on the CPU only token ids go to the devices, and only logits come back.
        moved = self.needs.input_moves if not cpu_parts and any(counts) else None
        usage = []
        for gpu, n in zip(self.gpus, counts, strict=False):
            parts = tuple(range(i, i + n))
            i += n
            names += [gpu.name] * n
            usage.append(
                Usage(
                    device=gpu,
                    parts=parts,
                    weights=sum(stack[p].weights for p in parts)
                    + ((moved or 0) if 0 in parts else 0)
                    + self.needs.elsewhere_on(gpu.name).weights,
                    kv_cell=sum(stack[p].kv_cell for p in parts),
                    window_row=sum(stack[p].window_row for p in parts),
                    n_cells=n_cells,
                    n_rows=n_rows,
                    compute=self.compute(gpu.name, parts),
                    compute_cell=self.needs.compute_cell_on(gpu.name) if n else 0,
                    compute_row=self.compute_row(gpu.name, [stack[p] for p in parts]),
                )
            )
        name, compute = self.cpu.name, self.needs.compute_on(self.cpu.name)
        if moved is not None:
            compute = 0
        elif not cpu_parts and self.needs.compute_input is not None:
            compute = self.needs.compute_input
        # Masks are written on the CPU, also those of other devices.
        masks = [self.needs.compute_cell_on(u.device.name) for u in usage if u.parts]
        compute_cell = self.needs.compute_cell_on(name) if cpu_parts else 0
        if masks and any(masks):
            compute_cell = max(compute_cell, self.needs.mask_cell)
        there = self.needs.elsewhere_on(name)
        if there.weights:
            compute = max(compute, self.needs.compute_elsewhere)
        own = [*([self.needs.input] if moved is None else []), *(stack[p] for p in cpu_parts), there]
        mapped = sum(part.mapped for part in own)
        cpu = Usage(
            device=self.cpu,
            parts=cpu_parts,
            weights=sum(part.weights for part in own) - mapped,
            mapped=mapped,
            kv_cell=sum(part.kv_cell for part in own),
            window_row=sum(part.window_row for part in own),
            n_cells=n_cells,
            n_rows=n_rows,
            compute=compute,
            compute_cell=compute_cell,
            compute_row=max(
                self.compute_row(d.name, stack) for d in (self.cpu, *(u.device for u in usage if u.parts))
            ),
            states=self.needs.states,
        )
        return Plan(
            layers=tuple(names),
            n_cells=n_cells,
            n_rows=n_rows,
            usage=(*usage, cpu),
            cpu_experts=self.cpu_experts,
        )

    def compute(self, name: str, parts: tuple[int, ...]) -> int:
        """Working memory of a device with these layers, without what depends on the cache."""
        if not parts:
            return self.needs.compute_elsewhere if self.needs.elsewhere_on(name).weights else 0
        last = self.needs.compute_last
        if last is not None and parts[0] >= len(self.needs.layers) - 1:
            return min(last, self.needs.compute_on(name))
        return self.needs.compute_on(name)

    def compute_row(self, name: str, parts: Sequence[Part]) -> int:
        """The bytes of a second mask per row, on a device with layers of both kinds."""
        both = any(part.kv_cell for part in parts) and any(part.window_row for part in parts)
        return self.needs.mask_cell if both and self.needs.compute_cell_on(name) else 0

    def refuse(self, plan: Plan, n_gpu: int) -> NoReturn:
        """Raise an error that says what does not fit on which device, and what would fit."""
        shared = shared_overflow(plan.usage)
        over = next((u for u in plan.usage if not u.fits), None)
        if over is None:
            over = next(u for u in plan.usage if u.device.type == "igpu" and u.parts)
            free, needed = over.device.free, over.needed + (shared or 0)
        else:
            free, needed = over.device.free, over.needed
        parts = spans(over.parts, len(plan.layers) - 1)
        weights, cache, compute = map(format_bytes, (over.weights, over.kv, over.working))
        sizes = f"weights {weights}, cache {cache}, compute {compute}"
        text = (
            f"{over.device.name} has {format_bytes(free)} free ({free} bytes), but layers {parts} with "
            f"{plan.n_cells} cells of cache need {format_bytes(needed)} ({needed} bytes: {sizes}); "
            f"{self.suggest(n_gpu)}"
        )
        error = OutOfMemoryError(text, device=over.device.name, needed=needed, free=free)
        error.add_note(plan.table())
        raise error

    def suggest(self, n_gpu: int) -> str:
        ideas = []
        if n_gpu:
            planner = self.fewest_cpu_experts(n_gpu, margin=False)
            if planner is not None and planner.cpu_experts:
                ideas.append(f"n_cpu_moe={planner.cpu_experts} would fit, with these experts on the CPU")
            fitting = next((n for n in range(n_gpu - 1, 0, -1) if self.place(n, self.least_cells)), 0)
            if fitting:
                ideas.append(f"gpu_layers={fitting} would fit")
            elif self.place(0, self.least_cells):
                ideas.append("no layer fits: run it on the CPU with use_gpu=false")
        steps = range(1, -(-self.least_cells // CELL_STEP))
        cells = CELL_STEP * bisect_left(steps, True, key=lambda i: not self.place(n_gpu, i * CELL_STEP))
        if cells:
            what = "kv_cells" if self.params.kv_cells is not None else "context_size"
            ideas.append(f"{what}={cells} would fit")
        return ", or ".join(ideas) or "use a smaller model or a stronger quantization"
