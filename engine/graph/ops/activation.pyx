# cython: embedsignature=True
"""GELU of our own for the CPU, as an operation that graphs can use."""

from libc.stdint cimport intptr_t

from engine.errors import GgmlError
from engine.ggml.operations cimport Context
from engine.ggml.tensor cimport Tensor
from engine.graph.ops.packed cimport vectors
from engine.libggml.ggml cimport GGML_N_TASKS_MAX, GGML_TYPE_F32, ggml_custom_4d, ggml_tensor

cdef extern from "activation.h" namespace "ggserve" nogil:
    enum Gelu:
        GELU_TANH
        GELU_ERF

cdef dict KINDS = {"gelu": <intptr_t>GELU_TANH, "gelu_erf": <intptr_t>GELU_ERF}


def op(Context ctx not None, str name, Tensor x not None, Tensor up=None):
    """gelu(x), or gelu(x) * up, both F32 of one shape; rows may be strided. name: gelu (tanh form), gelu_erf."""
    cdef ggml_tensor* args[2]
    cdef int i
    if name not in KINDS or x.ptr.type != GGML_TYPE_F32 or x.ptr.nb[0] != sizeof(float):
        raise GgmlError(f"{name}: {x!r} must be F32 with contiguous rows")
    if up is not None:
        if up.ptr.type != GGML_TYPE_F32 or up.ptr.nb[0] != sizeof(float):
            raise GgmlError(f"{name}: {up!r} must be F32 with contiguous rows")
        for i in range(4):
            if x.ptr.ne[i] != up.ptr.ne[i]:
                raise GgmlError(f"{name}: {x!r} and {up!r} differ in shape")
    args[0] = x.ptr
    args[1] = up.ptr if up is not None else NULL
    ctx.reserve()
    return ctx.wrap(ggml_custom_4d(
        ctx.ptr, GGML_TYPE_F32, x.ptr.ne[0], x.ptr.ne[1], x.ptr.ne[2], x.ptr.ne[3], args, 1 if up is None else 2,
        vectors().gelu, GGML_N_TASKS_MAX, <void*><intptr_t>KINDS[name]))
