"""One expression of the tensor wrapper, computed on a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F16, F32, I32, I64, Storage, runs_on
from support.builders.quantized import FORMATS, dequantize, quantize

CPU = next(d for d in devices() if d.type == "cpu")


class Calculator:
    """Computes one expression of the wrapper, wholly on `device`."""

    def __init__(self, device: Any = CPU) -> None:
        self.device = device
        self.ctx: Any = Context(128, graph_size=64)
        self.inputs = Storage(16)
        self.values: list[tuple[Any, bytes]] = []

    def input(self, array: np.ndarray) -> Any:
        kind = {"float32": F32, "float16": F16, "int32": I32, "int64": I64}[array.dtype.name]
        return self._new(kind, array.shape[::-1], np.ascontiguousarray(array).tobytes())

    def weights(self, array: np.ndarray, type: str) -> Any:
        """`array` in a type of the `gguf` package's names; on the CPU the floats that it then means."""
        if type == "F32":
            return self.input(array)
        data, dequantized = quantize(type, array, np.random.default_rng(5))
        if self.device is CPU:
            return self.input(dequantized)
        return self._new(FORMATS[type].number, array.shape[::-1], data)

    def empty(self, shape: tuple[int, ...], type: str) -> Any:
        """Zeros of `type`."""
        tensor = self._new(F32 if type == "F32" else FORMATS[type].number, shape, b"")
        self.values[-1] = (tensor, bytes(tensor.nbytes))
        return tensor

    def _new(self, type: int, shape: tuple[int, ...], data: bytes) -> Any:
        tensor = self.inputs.new(type, shape, f"input {len(self.values)}")
        self.values.append((tensor, data))
        return tensor

    def compute(self, out: Any) -> np.ndarray:
        """The elements of `out` as floats (or I32), in numpy's order of axes."""
        out = self.ctx.output(out)
        graph = self.ctx.graph(64)
        graph.add(out)
        assert runs_on(self.device, out), f"{self.device.name} does not claim this operation"
        buffer = self.inputs.allocate(self.device.buffer_types()[-1])
        buffer.mark_weights()  # so that the operation is computed where they are
        backends = [Backend(self.device, 2)] + ([] if self.device is CPU else [Backend(CPU, 1)])
        sched = Sched(backends, 128)
        sched.allocate(graph)
        for backend in backends[1:]:
            assert sched.buffer_size(backend) == 0, f"{self.device.name} left a part of it to the CPU"
        for tensor, data in self.values:
            tensor.set(data)
        sched.compute(graph)
        got = bytes(out.get())
        shape = out.shape[::-1]
        if out.type in (F32, F16, I32):
            kind = {F32: np.float32, I32: np.int32, F16: np.float16}[out.type]
            return np.frombuffer(got, kind).reshape(shape)
        rows = np.frombuffer(got, np.uint8).reshape(*shape[:-1], -1)
        return dequantize(out.type_name.upper(), rows)


class Forward:
    """The part of a forward context that layers use: all rows of the batch have outputs, or the `outputs`."""

    def __init__(self, ctx: Any, outputs: Any = None) -> None:
        self.ctx, self.outputs = ctx, outputs

    def activate(self, layer: int, name: str, x: Any, up: Any = None) -> Any:
        assert layer == 0
        return self.ctx.activation(x, name) if up is None else self.ctx.gated(name, x, up)

    def outputs_of(self, x: Any) -> Any:
        return x if self.outputs is None else self.ctx.get_rows(x, self.outputs)
