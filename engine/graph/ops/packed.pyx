# cython: embedsignature=True
"""Matrices of quantized weights in a layout of our own, and their products, on the CPU.

The kernels (`kernels/matmul`) exist for several instruction sets; the best that this processor can run is in
force, or the one that the environment variable GGSERVE_CPU_KERNELS names (`kernels/sets.cpp`), here and for the
operations of the modules beside this one (`kernels/vectors`). Types that a set computes no faster
than ggml are left to ggml.
"""

import os

from engine.errors import ConfigError, GgmlError
from engine.ggml.operations cimport Context
from engine.ggml.tensor cimport Storage, Tensor
from engine.ggml.tensor import I8
from engine.libggml.ggml cimport (
    GGML_N_TASKS_MAX, GGML_TYPE_F32, GGML_TYPE_I8, GGML_TYPE_I32, ggml_custom_4d, ggml_custom_op_t,
    ggml_row_size, ggml_tensor, ggml_type,
)
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector

cdef extern from "sets.h" namespace "ggserve" nogil:
    vector[const char*] compiled_sets()
    vector[const char*] supported_sets()
    const char* set_in_force()
    cpp_bool use_set(const char* name)
    const Vectors* vectors_in_force()

cdef extern from "matmul/matmul.h" namespace "ggserve" nogil:
    cppclass Product:
        ggml_type type
        int32_t n_experts

    cpp_bool c_can_pack "ggserve::can_pack"(ggml_type type, int64_t n_in, int64_t n_out)
    cpp_bool c_is_faster_packed "ggserve::is_faster_packed"(ggml_type type)
    size_t packed_size(ggml_type type, int64_t n_in, int64_t n_out)
    void pack(ggml_type type, const void* src, int64_t n_in, int64_t n_out, void* dst, int n_threads)
    int pack_file(ggml_type type, int fd, int64_t offset, int64_t n_in, int64_t n_out, void* dst, int n_threads)
    size_t activation_size(int64_t n_in)
    void quantize_forward(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept
    void product_forward(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept
    size_t order_size(int64_t n_pairs)
    void order_forward(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept
    void quantize_experts_forward(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept
    void experts_forward(ggml_tensor* dst, int ith, int nth, void* userdata) noexcept


cdef str VARIABLE = "GGSERVE_CPU_KERNELS"
cdef bint is_set = False


def instruction_sets():
    """The names of the kernel sets that this processor can run, best first."""
    return [name.decode() for name in supported_sets()]


def instruction_set():
    """The name of the kernel set in force. ConfigError if GGSERVE_CPU_KERNELS names one that cannot run here."""
    if not is_set:
        use_instruction_set(os.environ.get(VARIABLE, ""))
    return set_in_force().decode()


def use_instruction_set(str name not None):
    """Put a kernel set in force, also for matrices that are packed already; "": the best. ConfigError as above.

    Attention, activations and recurrent layers of graphs that exist already keep theirs.
    """
    global is_set
    known = [each.decode() for each in compiled_sets()]
    usable = instruction_sets()
    if name and name not in known:
        raise ConfigError(f"{VARIABLE}={name}: unknown; this build has {', '.join(known)}")
    if name and name not in usable:
        raise ConfigError(f"{VARIABLE}={name}: this processor cannot run it; it runs {', '.join(usable)}")
    use_set((name or usable[0]).encode())
    is_set = True


cdef const Vectors* vectors() except NULL:
    instruction_set()
    return vectors_in_force()


def can_pack(int type, tuple shape):
    """Whether a matrix of this ggml type and shape (n_in, n_out[, n_experts]) can be packed."""
    instruction_set()
    return len(shape) in (2, 3) and c_can_pack(<ggml_type>type, shape[0], shape[1])


def is_faster_packed(int type):
    """Whether products with packed matrices of this type are at least as fast as ggml's, with the set in force."""
    instruction_set()
    return c_is_faster_packed(<ggml_type>type)


cdef class PackedMatrix:
    """A packed matrix [n_in, n_out], or that of several experts [n_in, n_out, n_experts].

    Its context must be allocated in the CPU's memory before `load`.
    """

    cdef readonly Tensor tensor
    cdef readonly int64_t n_in, n_out, n_experts
    cdef Product* product

    def __init__(self, Storage ctx not None, int type, tuple shape, str name):
        if not can_pack(type, shape):
            raise GgmlError(f"{name}: matrices of this type and shape {shape} cannot be packed")
        self.n_in, self.n_out, self.n_experts = shape if len(shape) == 3 else (*shape, 1)
        self.product = new Product()
        self.product.type, self.product.n_experts = <ggml_type>type, self.n_experts
        size = packed_size(<ggml_type>type, self.n_in, self.n_out * self.n_experts)
        self.tensor = ctx.new(I8, (size,), name)

    def __dealloc__(self):
        del self.product

    def load(self, const unsigned char[::1] data, int n_threads=1):
        """Pack `data`, the matrix as it is in the file, with `n_threads` threads."""
        if self.tensor.ptr.data == NULL:
            raise GgmlError(f"tensor {self.tensor.name} has no memory yet")
        cdef int64_t n_rows = self.n_out * self.n_experts
        if <size_t>data.shape[0] != ggml_row_size(self.product.type, self.n_in) * n_rows:
            raise GgmlError(f"tensor {self.tensor.name} is not {data.shape[0]} bytes long")
        with nogil:
            pack(self.product.type, &data[0], self.n_in, n_rows, self.tensor.ptr.data, n_threads)

    def read(self, int fd, int64_t offset, int n_threads=1):
        """The same for data in an open file; False if the file is too short. OSError if it cannot be read.

        Threads read what they pack.
        """
        cdef int error
        if self.tensor.ptr.data == NULL:
            raise GgmlError(f"tensor {self.tensor.name} has no memory yet")
        with nogil:
            error = pack_file(self.product.type, fd, offset, self.n_in, self.n_out * self.n_experts,
                              self.tensor.ptr.data, n_threads)
        if error > 0:
            raise OSError(error, os.strerror(error))
        return error == 0

    def times(self, Context ctx not None, Tensor x not None):
        """This matrix by x F32 [n_in, n] -> [n_out, n]. x is quantized once for all products with it."""
        cdef ggml_tensor* args[2]
        if (x.ptr.ne[0] != self.n_in or x.ptr.type != GGML_TYPE_F32 or x.ptr.nb[0] != sizeof(float)
                or x.ptr.ne[2] != 1 or x.ptr.ne[3] != 1 or self.n_experts != 1):
            raise GgmlError(f"{self!r} does not go with {x!r}")
        key = <size_t>x.ptr
        if key not in ctx.shared:
            ctx.reserve()
            args[0] = x.ptr
            ctx.shared[key] = <size_t>ggml_custom_4d(
                ctx.ptr, GGML_TYPE_I8, activation_size(self.n_in), x.ptr.ne[1], 1, 1, args, 1,
                <ggml_custom_op_t>quantize_forward, GGML_N_TASKS_MAX, NULL)
        ctx.reserve()
        args[:] = [self.tensor.ptr, <ggml_tensor*><size_t>ctx.shared[key]]
        return ctx.wrap(ggml_custom_4d(
            ctx.ptr, GGML_TYPE_F32, self.n_out, x.ptr.ne[1], 1, 1, args, 2,
            <ggml_custom_op_t>product_forward, GGML_N_TASKS_MAX, self.product))

    def times_experts(self, Context ctx not None, Tensor x not None, Tensor ids not None):
        """`Tensor.times_experts`. Rows are sorted by expert once for all products with the same ids."""
        cdef ggml_tensor* args[3]
        cdef int64_t n_used = ids.ptr.ne[0], rows = ids.ptr.ne[1], n_pairs = n_used * rows
        if (x.ptr.ne[0] != self.n_in or x.ptr.type != GGML_TYPE_F32 or x.ptr.nb[0] != sizeof(float)
                or x.ptr.ne[1] not in (1, n_used) or x.ptr.ne[2] != rows or x.ptr.ne[3] != 1
                or ids.ptr.type != GGML_TYPE_I32 or ids.ptr.ne[2] != 1):
            raise GgmlError(f"{self!r} does not go with {x!r} and experts {ids!r}")
        order = <size_t>ids.ptr, self.n_experts
        if order not in ctx.shared:
            ctx.reserve()
            args[0] = ids.ptr
            ctx.shared[order] = <size_t>ggml_custom_4d(
                ctx.ptr, GGML_TYPE_I32, order_size(n_pairs), 1, 1, 1, args, 1,
                <ggml_custom_op_t>order_forward, 1, self.product)
        args[:] = [x.ptr, <ggml_tensor*><size_t>ctx.shared[order], NULL]
        key = <size_t>x.ptr, <size_t>ids.ptr
        if key not in ctx.shared:
            ctx.reserve()
            ctx.shared[key] = <size_t>ggml_custom_4d(
                ctx.ptr, GGML_TYPE_I8, activation_size(self.n_in), n_pairs, 1, 1, args, 2,
                <ggml_custom_op_t>quantize_experts_forward, GGML_N_TASKS_MAX, NULL)
        ctx.reserve()
        args[:] = [self.tensor.ptr, <ggml_tensor*><size_t>ctx.shared[key], args[1]]
        return ctx.wrap(ggml_custom_4d(
            ctx.ptr, GGML_TYPE_F32, self.n_out, n_used, rows, 1, args, 3,
            <ggml_custom_op_t>experts_forward, GGML_N_TASKS_MAX, self.product))

    def __repr__(self):
        shape = [self.n_in, self.n_out, self.n_experts][:3 if self.n_experts > 1 else 2]
        return f"<PackedMatrix {self.tensor.name} {shape}>"
