# cython: embedsignature=True
"""Tensors, the contexts that hold them, and graphs; `engine.ggml.operations` builds tensors from tensors.

Shapes are in ggml order: ne0 is the fastest. Arguments that would fail a GGML_ASSERT, which ends
the process, raise GgmlError before the call.
"""

from libc.stdint cimport int64_t
from libc.string cimport memmove

from engine.errors import GgmlError, OutOfMemoryError
from engine.ggml.backend cimport Buffer, BufferType, Device
from engine.ggml.check cimport not_null, ok
from engine.libggml.backend cimport (
    ggml_backend_alloc_ctx_tensors_from_buft, ggml_backend_alloc_ctx_tensors_from_buft_size, ggml_backend_buffer_free,
    ggml_backend_buffer_get_base, ggml_backend_buffer_get_size, ggml_backend_buffer_is_host, ggml_backend_buffer_t,
    ggml_backend_buft_alloc_buffer, ggml_backend_dev_supports_op, ggml_backend_tensor_alloc, ggml_backend_tensor_get,
    ggml_backend_tensor_set,
)
from engine.libggml.ggml cimport (
    GGML_TYPE_COUNT, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_I32, GGML_TYPE_I64, GGML_TYPE_I8, ggml_blck_size,
    ggml_build_forward_expand, ggml_free, ggml_graph_n_nodes, ggml_graph_overhead_custom, ggml_init, ggml_init_params,
    ggml_is_contiguous, ggml_nbytes, ggml_new_graph_custom, ggml_new_tensor_4d, ggml_row_size, ggml_set_input,
    ggml_set_name, ggml_set_output, ggml_tensor_overhead, ggml_type, ggml_type_name,
)

F32, F16 = <int>GGML_TYPE_F32, <int>GGML_TYPE_F16
I8, I32, I64 = <int>GGML_TYPE_I8, <int>GGML_TYPE_I32, <int>GGML_TYPE_I64


def type_id(str name):
    """ggml's number of the type called `name` (f16, q8_0, …)."""
    for i in range(<int>GGML_TYPE_COUNT):
        type_name = ggml_type_name(<ggml_type>i)
        if type_name != NULL and type_name.decode() == name:
            return i
    raise GgmlError(f"ggml has no type {name!r}")


def row_size(int type, int64_t ne0):
    """Bytes of one row of `ne0` elements."""
    if ne0 % ggml_blck_size(<ggml_type>type):
        raise GgmlError(f"{ne0} elements are not a multiple of a block of {ggml_type_name(<ggml_type>type).decode()}")
    return ggml_row_size(<ggml_type>type, ne0)


cdef class Tensor:
    """A borrowed ggml tensor; keeps its context alive."""

    def __init__(self):
        raise TypeError("tensors come from a Storage")

    @property
    def shape(self):
        """(ne0, ne1, ne2, ne3)"""
        return self.ptr.ne[0], self.ptr.ne[1], self.ptr.ne[2], self.ptr.ne[3]

    @property
    def strides(self):
        """Bytes: (nb0, nb1, nb2, nb3)"""
        return self.ptr.nb[0], self.ptr.nb[1], self.ptr.nb[2], self.ptr.nb[3]

    @property
    def type(self):
        return <int>self.ptr.type

    @property
    def type_name(self):
        return ggml_type_name(self.ptr.type).decode()

    @property
    def name(self):
        return (<bytes>self.ptr.name).decode("utf-8", "replace")

    @name.setter
    def name(self, str name):
        encoded = name.encode()[:63]
        ggml_set_name(self.ptr, encoded)

    @property
    def nbytes(self):
        return ggml_nbytes(self.ptr)

    @property
    def contiguous(self):
        return bool(ggml_is_contiguous(self.ptr))

    def __repr__(self):
        return f"Tensor({self.name!r}, {self.type_name}, {self.shape})"

    cdef int need_memory(self) except -1:
        cdef Buffer buffer
        if self.ptr.buffer == NULL and (self.ptr.view_src == NULL or self.ptr.view_src.buffer == NULL):
            raise GgmlError(f"tensor {self.name} has no memory yet")
        for buffer in self.context.buffers:
            buffer.open()
        return 0

    def times(self, ctx not None, Tensor x not None):
        """This matrix [k, m] by x [k, n] -> [m, n]: an operation that weights of all layouts have."""
        return ctx.mul_mat(self, x)

    def times_experts(self, ctx not None, Tensor x not None, Tensor ids not None):
        """These experts [k, m, n_expert] by x [k, n_used | 1, n], ids I32 [n_used, n] -> [m, n_used, n]."""
        return ctx.mul_mat_id(self, x, ids)

    def set(self, const unsigned char[::1] data, size_t offset=0):
        """Copy bytes into an allocated tensor (a repacking buffer takes all of it at once)."""
        self.need_memory()
        cdef size_t size = data.shape[0]
        if offset > ggml_nbytes(self.ptr) or size > ggml_nbytes(self.ptr) - offset:
            raise GgmlError(f"{size} bytes at {offset} do not fit tensor {self.name}")
        if size:
            with nogil:
                ggml_backend_tensor_set(self.ptr, &data[0], offset, size)

    def get(self, size_t offset=0, size=None):
        """A copy of the bytes of an allocated tensor; `size` of them, None: all that follow `offset`."""
        self.need_memory()
        cdef size_t end = ggml_nbytes(self.ptr)
        if offset > end or (size is not None and not 0 <= size <= end - offset):
            raise GgmlError(f"tensor {self.name} has no {size} bytes at {offset}")
        cdef bytearray out = bytearray(end - offset if size is None else size)
        cdef unsigned char[::1] view = out
        if view.shape[0]:
            with nogil:
                ggml_backend_tensor_get(self.ptr, &view[0], offset, view.shape[0])
        return out

    def move(self, size_t source, size_t target, size_t size):
        """Copy the `size` bytes at `source` to `target`, within a tensor that is in the host's memory."""
        self.need_memory()
        cdef size_t end = ggml_nbytes(self.ptr)
        if size > end or source > end - size or target > end - size:
            raise GgmlError(f"tensor {self.name} has no {size} bytes at {source} or {target}")
        if self.ptr.buffer == NULL or not ggml_backend_buffer_is_host(self.ptr.buffer):
            raise GgmlError(f"tensor {self.name} is not in the host's memory")
        cdef char* data = <char*>self.ptr.data
        with nogil:
            memmove(data + target, data + source, size)


cdef class Storage:
    """Metadata of at most `n_tensors` tensors (and `graph_size` graph nodes); data lives in buffers."""

    def __init__(self, size_t n_tensors, size_t graph_size=0):
        cdef ggml_init_params params
        params.mem_size = n_tensors * ggml_tensor_overhead()
        if graph_size:
            params.mem_size += ggml_graph_overhead_custom(graph_size, False)
        params.mem_buffer = NULL
        params.no_alloc = True
        self.ptr = ggml_init(params)
        not_null(self.ptr, "creating a tensor context")
        self.n_tensors = self.room = n_tensors
        self.buffers = []
        self.shared = {}

    def __dealloc__(self):
        if self.ptr != NULL:
            ggml_free(self.ptr)

    cdef int reserve(self) except -1:
        # ggml answers a full context with an assertion, so the slots are counted here.
        if self.room == 0:
            raise GgmlError("tensor context is full")
        self.room -= 1
        return 0

    cdef Tensor wrap(self, ggml_tensor* ptr):
        not_null(ptr, "building an operation")
        cdef Tensor tensor = Tensor.__new__(Tensor)
        tensor.ptr, tensor.context = ptr, self
        return tensor

    def new(self, int type, tuple shape, str name=""):
        """An unallocated tensor of `shape` (ne0 first, up to four numbers)."""
        cdef int64_t ne[4]
        cdef int i
        ne[:] = [1, 1, 1, 1]
        if not 0 < len(shape) <= 4:
            raise GgmlError(f"a tensor has 1 to 4 dimensions, not {len(shape)}")
        for i in range(len(shape)):
            ne[i] = shape[i]
            if ne[i] <= 0:
                raise GgmlError(f"tensor {name}: dimension {i} is {ne[i]}")
        row_size(type, ne[0])
        self.reserve()
        tensor = self.wrap(ggml_new_tensor_4d(self.ptr, <ggml_type>type, ne[0], ne[1], ne[2], ne[3]))
        if name:
            tensor.name = name
        return tensor

    # --- memory

    def size_in(self, BufferType type not None):
        """Bytes that `allocate` would take from `type`."""
        return ggml_backend_alloc_ctx_tensors_from_buft_size(self.ptr, type.ptr)

    def allocate(self, BufferType type not None):
        """Allocate all tensors of this context in one buffer. OutOfMemoryError names the device."""
        cdef size_t size = self.size_in(type)
        cdef ggml_backend_buffer_t ptr
        with nogil:
            ptr = ggml_backend_alloc_ctx_tensors_from_buft(self.ptr, type.ptr)
        if ptr == NULL:
            device = type.device
            raise OutOfMemoryError(
                f"device {device.name} has no room for {size} bytes ({device.free} free)",
                device=device.name, needed=size, free=device.free)
        buffer = Buffer.wrap(ptr, type, None, "allocating")
        self.buffers.append(buffer)
        return buffer

    def place(self, Tensor tensor not None, Buffer buffer not None, const unsigned char[::1] memory):
        """Place `tensor` at `memory`, which lies inside `buffer` (a mapped file)."""
        if <size_t>memory.shape[0] != ggml_nbytes(tensor.ptr):
            raise GgmlError(f"tensor {tensor.name} has {ggml_nbytes(tensor.ptr)} bytes, not {memory.shape[0]}")
        base = <size_t>ggml_backend_buffer_get_base(buffer.open())
        if tensor.ptr.data != NULL or not (
                base <= <size_t>&memory[0] <= base + ggml_backend_buffer_get_size(buffer.ptr) - memory.shape[0]):
            raise GgmlError(f"tensor {tensor.name} has memory already, or is not inside the buffer")
        ok(ggml_backend_tensor_alloc(buffer.ptr, tensor.ptr, <void*>&memory[0]), f"placing {tensor.name}")
        if buffer not in self.buffers:
            self.buffers.append(buffer)

    def graph(self, size_t size):
        """An empty graph of at most `size` nodes."""
        cdef Graph graph = Graph.__new__(Graph)
        graph.ptr = ggml_new_graph_custom(self.ptr, size, False)
        not_null(graph.ptr, "creating a graph")
        graph.context, graph.size = self, size
        return graph

    # --- roles

    def input(self, int type, tuple shape, str name):
        """A tensor that is written before each computation."""
        tensor = self.new(type, shape, name)
        ggml_set_input((<Tensor>tensor).ptr)
        return tensor

    def output(self, Tensor a not None):
        """Keep the memory of `a` until it has been read."""
        ggml_set_output(a.ptr)
        return a


cdef class Graph:
    """A computation: the operations needed for the tensors that were added."""

    def __init__(self):
        raise TypeError("graphs come from Storage.graph()")

    def add(self, Tensor tensor not None):
        """Append `tensor` and all it depends on, in order."""
        # ggml answers a full graph with an assertion. What has been built is more than what is added.
        if self.context.n_tensors - self.context.room > self.size:
            raise GgmlError(f"a graph of {self.size} nodes is full")
        ggml_build_forward_expand(self.ptr, tensor.ptr)

    @property
    def n_nodes(self):
        return ggml_graph_n_nodes(self.ptr)


def supports(Device device not None, BufferType type not None, Tensor op not None, Tensor weight not None):
    """Whether `device` can run `op` with `weight` in `type`; all tensors unallocated.

    ggml looks at the weight's buffer, so the weight gets an empty one of that type for the call.
    """
    cdef ggml_backend_buffer_t empty = ggml_backend_buft_alloc_buffer(type.ptr, 0)
    if empty == NULL:
        return False
    weight.ptr.buffer = empty
    try:
        return ggml_backend_dev_supports_op(device.ptr, op.ptr)
    finally:
        weight.ptr.buffer = NULL
        ggml_backend_buffer_free(empty)


def runs_on(Device device not None, Tensor op not None):
    """Whether `device` can run `op`, built of unallocated tensors."""
    return bool(ggml_backend_dev_supports_op(device.ptr, op.ptr))
