# cython: embedsignature=True
"""Devices, backends, buffer types and buffers of ggml, each owned by one object.

Concurrency: only the engine thread calls these, except `devices()` which reads a registry that is
complete after the import of this module.
"""

cimport cython

import atexit
import os
import sys
from pathlib import Path


from engine.errors import ConfigError, DeviceError, GgmlError
from engine.ggml import check
from engine.ggml.check cimport not_null
from engine.libggml.backend cimport (
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS, GGML_BACKEND_DEVICE_TYPE_ACCEL, GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU, GGML_BACKEND_DEVICE_TYPE_META,
    get_extra_bufts_fn, ggml_backend_buffer_clear, ggml_backend_buffer_free, ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_is_host, ggml_backend_buffer_set_usage, ggml_backend_buft_get_alignment,
    ggml_backend_buft_is_host, ggml_backend_buft_name, ggml_backend_dev_backend_reg,
    ggml_backend_dev_buffer_from_host_ptr, ggml_backend_dev_buffer_type, ggml_backend_dev_count,
    ggml_backend_dev_get, ggml_backend_dev_get_props, ggml_backend_dev_init, ggml_backend_dev_props,
    ggml_backend_dev_t, ggml_backend_reg_by_name, ggml_backend_reg_t, ggml_backend_register, rpc_add_server_fn,
    rpc_start_server_fn,
    ggml_backend_free, ggml_backend_load, ggml_backend_load_all_from_path, ggml_backend_reg_get_proc_address,
    ggml_backend_reg_name, set_n_threads_fn, set_threadpool_fn, threadpool_free_fn, threadpool_new_fn,
)
from engine.libggml.ggml cimport (
    GGML_MAX_N_THREADS, ggml_threadpool_params, ggml_threadpool_params_default, ggml_version,
)

cdef extern from "memory.h" namespace "ggserve" nogil:
    bint lock_memory(void* address, size_t size)
    bint prefer_large_pages(void* address, size_t size)

LIBRARY_DIR = Path(__file__).resolve().parent.parent / "lib"
MAX_THREADS = <int>GGML_MAX_N_THREADS
OWN_BACKENDS = ("clblast",)  # which ggml does not load by itself

cdef dict _TYPES = {
    GGML_BACKEND_DEVICE_TYPE_CPU: "cpu", GGML_BACKEND_DEVICE_TYPE_GPU: "gpu", GGML_BACKEND_DEVICE_TYPE_IGPU: "igpu",
    GGML_BACKEND_DEVICE_TYPE_ACCEL: "accel", GGML_BACKEND_DEVICE_TYPE_META: "meta",
}


def version():
    """The version of the ggml that is loaded, as it reports it."""
    return ggml_version().decode()


def _load_backends():
    # Always an explicit folder: with none, ggml searches python's own directory and the working directory.
    check.capture_log()
    atexit.register(check.release_log)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort must not start a debugger
    folder = os.fsencode(LIBRARY_DIR)
    ggml_backend_load_all_from_path(folder)
    suffix = {"win32": ".dll"}.get(sys.platform, ".so")
    for name in OWN_BACKENDS:
        for path in LIBRARY_DIR.glob(f"*ggml-{name}{suffix}"):
            ggml_backend_load(os.fsencode(path))


cdef class Device:
    """One device that ggml sees. `type`: cpu, gpu, igpu, accel or meta; memory in bytes."""

    def __init__(self):
        raise TypeError("devices come from devices()")

    @property
    def free(self):
        """Free bytes now, as the backend reports them (the CPU reports its total)."""
        return self._props()["memory_free"]

    def _props(self):
        cdef ggml_backend_dev_props props
        ggml_backend_dev_get_props(self.ptr, &props)
        return {"memory_free": props.memory_free, "memory_total": props.memory_total}

    def __repr__(self):
        return f"Device({self.name!r}, {self.backend}, {self.type})"

    def buffer_types(self):
        """Buffer types for weights, best first: repacked layouts, then the device's own."""
        cdef list types = []
        cdef get_extra_bufts_fn get_extra
        cdef ggml_backend_buffer_type_t* extra
        get_extra = <get_extra_bufts_fn>ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(self.ptr), b"ggml_backend_dev_get_extra_bufts")
        if get_extra != NULL:
            extra = get_extra(self.ptr)
            while extra != NULL and extra[0] != NULL:
                types.append(_buffer_type(extra[0], self))
                extra += 1
        types.append(_buffer_type(ggml_backend_dev_buffer_type(self.ptr), self))
        return types


cdef BufferType _buffer_type(ggml_backend_buffer_type_t ptr, Device device):
    cdef BufferType buffer_type = BufferType.__new__(BufferType)
    buffer_type.ptr, buffer_type.device = ptr, device
    buffer_type.name = ggml_backend_buft_name(ptr).decode()
    buffer_type.is_host = ggml_backend_buft_is_host(ptr)
    return buffer_type


cdef class BufferType:
    """A device's memory in one layout, in which tensors can be allocated."""

    def __init__(self):
        raise TypeError("buffer types come from Device.buffer_types()")

    def __repr__(self):
        return f"BufferType({self.name!r})"

    @property
    def alignment(self):
        return ggml_backend_buft_get_alignment(self.ptr)


def devices():
    """Every device that ggml sees, in ggml's order of preference (accelerators before the CPU)."""
    cdef Device device
    cdef ggml_backend_dev_props props
    all_devices = []
    for i in range(ggml_backend_dev_count()):
        device = Device.__new__(Device)
        device.ptr = ggml_backend_dev_get(i)
        ggml_backend_dev_get_props(device.ptr, &props)
        device.name = props.name.decode("utf-8", "replace")
        device.description = props.description.decode("utf-8", "replace")
        device.backend = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device.ptr)).decode("utf-8", "replace")
        device.type = _TYPES.get(props.type, "accel")
        device.total = props.memory_total
        device.maps_host_memory = props.caps.buffer_from_host_ptr and props.caps.mmap_support
        all_devices.append(device)
    if not any(d.type == "cpu" for d in all_devices):
        raise DeviceError(f"ggml's CPU backend could not be loaded from {LIBRARY_DIR.name}/; reinstall ggserve")
    return all_devices


cdef void* _rpc(bytes name) except NULL:
    cdef ggml_backend_reg_t reg = ggml_backend_reg_by_name(b"RPC")
    cdef void* function = NULL
    if reg != NULL:
        function = ggml_backend_reg_get_proc_address(reg, name)
    if function == NULL:
        raise DeviceError("this build has no RPC backend; install with GGSERVE_BACKENDS=cpu,rpc")
    return function


_rpc_servers = set()


def add_rpc_server(str endpoint not None):
    """Add the devices of the worker at HOST:PORT to `devices()`.

    Call `engine.model.rpc.handshake` first: ggml aborts if there is no worker.
    """
    cdef rpc_add_server_fn add = <rpc_add_server_fn>_rpc(b"ggml_backend_rpc_add_server")
    cdef ggml_backend_reg_t reg
    if endpoint in _rpc_servers:
        return
    encoded = endpoint.encode()
    cdef const char* text = encoded
    with nogil:
        reg = add(text)
    if reg == NULL:
        raise DeviceError(f"the worker at {endpoint} serves no device")
    ggml_backend_register(reg)
    _rpc_servers.add(endpoint)


def serve_rpc(str endpoint not None, list devices not None, int n_threads, cache=None):
    """Serve `devices` over RPC at HOST:PORT, to one client at a time. Returns only on failure.

    cache: folder for tensors that clients send again. There is no authentication.
    """
    cdef rpc_start_server_fn start = <rpc_start_server_fn>_rpc(b"ggml_backend_rpc_start_server")
    cdef ggml_backend_dev_t[16] pointers
    cdef size_t n = len(devices)
    if not 0 < n <= 16:
        raise ConfigError(f"{n} devices are to be served; it must be 1 to 16")
    for i, device in enumerate(devices):
        pointers[i] = (<Device?>device).ptr
    encoded, folder = endpoint.encode(), os.fsencode(cache) if cache is not None else None
    cdef const char* text = encoded
    cdef const char* where = NULL
    if folder is not None:
        where = folder
    with nogil:
        start(text, where, n_threads, n, pointers)


@cython.no_gc_clear  # the device is needed to free the pool
cdef class Backend:
    """A stream of work on one device. The CPU's carries a thread pool that lives as long as it does.

    The pool is needed because a ggml built without OpenMP would start threads for every graph.
    """

    def __init__(self, Device device not None, int n_threads=1):
        with nogil:
            self.ptr = ggml_backend_dev_init(device.ptr, NULL)
        not_null(self.ptr, f"starting device {device.name}")
        self.device = device
        if device.type == "cpu":
            self.set_threads(n_threads)

    cdef void* proc(self, str name) except? NULL:
        encoded = name.encode()
        return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(self.device.ptr), encoded)

    def set_threads(self, int n_threads):
        """Replace the pool by one of `n_threads` threads (the calling thread is one of them)."""
        if not 1 <= n_threads <= MAX_THREADS:
            raise ConfigError(f"n_threads is {n_threads}; it must be 1 to {MAX_THREADS}")
        if self.ptr == NULL or self.device.type != "cpu":
            raise GgmlError("only an open CPU backend has threads")
        if n_threads == self.n_threads:
            return
        cdef ggml_threadpool_params params = ggml_threadpool_params_default(n_threads)
        cdef set_n_threads_fn set_n = <set_n_threads_fn>self.proc("ggml_backend_set_n_threads")
        cdef threadpool_new_fn new = <threadpool_new_fn>self.proc("ggml_threadpool_new")
        cdef set_threadpool_fn set_pool = <set_threadpool_fn>self.proc("ggml_backend_cpu_set_threadpool")
        cdef ggml_threadpool_t pool
        with nogil:
            pool = new(&params)
        not_null(pool, f"starting {n_threads} threads")
        set_pool(self.ptr, pool)
        self._free_pool()
        self.pool = pool
        set_n(self.ptr, n_threads)
        self.n_threads = n_threads

    cdef _free_pool(self):
        cdef threadpool_free_fn free_pool
        cdef ggml_threadpool_t pool = self.pool
        if pool != NULL:
            free_pool = <threadpool_free_fn>self.proc("ggml_threadpool_free")
            self.pool = NULL
            with nogil:
                free_pool(pool)

    def close(self):
        """Free the backend. Buffers of its device may outlive it."""
        if self.ptr != NULL:
            ggml_backend_free(self.ptr)
            self.ptr = NULL
            self._free_pool()

    def __dealloc__(self):
        if self.ptr != NULL:
            ggml_backend_free(self.ptr)
            self.ptr = NULL
            self._free_pool()


cdef class Buffer:
    """Memory on a device. Tensors allocated in it keep it alive through their context, until `close`."""

    def __init__(self):
        raise TypeError("buffers come from Storage.allocate() or map_host_memory()")

    @staticmethod
    cdef Buffer wrap(ggml_backend_buffer_t ptr, BufferType type, object keep, str what):
        not_null(ptr, what)
        cdef Buffer buffer = Buffer.__new__(Buffer)
        buffer.ptr, buffer.type, buffer.keep = ptr, type, keep
        return buffer

    cdef ggml_backend_buffer_t open(self) except NULL:
        if self.ptr == NULL:
            raise GgmlError("this buffer was closed")
        return self.ptr

    @property
    def size(self):
        return ggml_backend_buffer_get_size(self.open())

    @property
    def is_host(self):
        return ggml_backend_buffer_is_host(self.open())

    def mark_weights(self):
        """Tell the scheduler that it holds weights, which decide where an operation runs.

        In the CPU's memory the system is asked for large pages: call it before anything is written.
        """
        ggml_backend_buffer_set_usage(self.open(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
        if self.type.device.type == "cpu":
            prefer_large_pages(ggml_backend_buffer_get_base(self.ptr), ggml_backend_buffer_get_size(self.ptr))

    def lock(self):
        """Lock it in RAM. Returns False if the system refuses, or it is not the CPU's memory."""
        # Repacked weights are host memory too, although ggml does not call them so.
        if self.type.device.type != "cpu":
            return False
        cdef void* base = ggml_backend_buffer_get_base(self.open())
        cdef size_t size = ggml_backend_buffer_get_size(self.open())
        cdef bint locked
        with nogil:  # it reads all of it from the disk, which may take minutes
            locked = lock_memory(base, size)
        return locked

    def clear(self):
        """Fill with zeros: a NaN in an unused KV cell would spread through a masked softmax."""
        cdef ggml_backend_buffer_t ptr = self.open()
        with nogil:
            ggml_backend_buffer_clear(ptr, 0)

    def close(self):
        if self.ptr != NULL:
            ggml_backend_buffer_free(self.ptr)
            self.ptr = NULL
        self.keep = None

    def __dealloc__(self):
        if self.ptr != NULL:
            ggml_backend_buffer_free(self.ptr)


def map_host_memory(BufferType type not None, const unsigned char[::1] memory, size_t max_tensor_size):
    """A buffer over existing memory (a mapped file). Keeps `memory` alive.

    Raises GgmlError if the device cannot use it.
    """
    cdef void* address = <void*>&memory[0]
    cdef ggml_backend_buffer_t ptr = ggml_backend_dev_buffer_from_host_ptr(
        type.device.ptr, address, memory.shape[0], max_tensor_size)
    return Buffer.wrap(ptr, type, memory, f"mapping a file for {type.device.name}")


_load_backends()
