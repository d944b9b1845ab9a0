"""One expression of the tensor wrapper, computed on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F16, F32, I32, I64

CPU = next(d for d in devices() if d.type == "cpu")


class Calculator:
    """Computes one expression of the wrapper on the CPU."""

    def __init__(self) -> None:
        self.ctx: Any = Context(64, graph_size=32)
        self.values: list[tuple[Any, bytes]] = []

    def input(self, array: np.ndarray) -> Any:
        kind = {"float32": F32, "float16": F16, "int32": I32, "int64": I64}[array.dtype.name]
        tensor = self.ctx.input(kind, array.shape[::-1], f"input {len(self.values)}")
        self.values.append((tensor, array.tobytes()))
        return tensor

    def compute(self, out: Any) -> np.ndarray:
        out = self.ctx.output(out)
        graph = self.ctx.graph(32)
        for tensor, _ in self.values:
            graph.add(tensor)
        graph.add(out)
        sched = Sched([Backend(CPU, 2)], 128)
        sched.allocate(graph)
        for tensor, data in self.values:
            tensor.set(data)
        sched.compute(graph)
        kind = {F32: np.float32, I32: np.int32, F16: np.float16}[out.type]
        return np.frombuffer(out.get(), kind).reshape(out.shape[::-1])
