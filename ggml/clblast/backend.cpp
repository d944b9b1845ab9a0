// ggml's backend interface: registry, devices, buffers, and graph computation.
#include "device.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "launch.h"
#include "ops.h"

#include <cstring>

namespace clblast_backend {

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// --- buffers

Buffer & of(ggml_backend_buffer_t buffer) { return *static_cast<Buffer *>(buffer->context); }

void free_buffer(ggml_backend_buffer_t buffer) {
    Buffer & b = of(buffer);
    {
        const Lock lock(b.device->mutex);
        clFinish(b.device->queue);
        b.device->release(b.memory, b.size);
    }
    delete &b;
}

void * get_base(ggml_backend_buffer_t) { return BASE; }

void fill(Buffer & b, cl_uchar value, size_t offset, size_t size) {
    if (size == 0) return;
    const Lock lock(b.device->mutex);
    ok(clEnqueueFillBuffer(b.device->queue, b.memory, &value, 1, offset, size, 0, nullptr, nullptr), "filling memory");
    clFinish(b.device->queue);
}

void memset_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    fill(of(buffer), value, place(tensor).offset + offset, size);
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) { fill(of(buffer), value, 0, of(buffer).size); }

void set_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    if (size == 0) return;
    Device & device = *of(buffer).device;
    const Lock lock(device.mutex);
    const Place at = place(tensor);
    ok(clEnqueueWriteBuffer(device.queue, at.memory, CL_TRUE, at.offset + offset, size, data, 0, nullptr, nullptr),
       "writing a tensor");
}

void get_tensor(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    if (size == 0) return;
    Device & device = *of(buffer).device;
    const Lock lock(device.mutex);
    const Place at = place(tensor);
    if (!ok(clEnqueueReadBuffer(device.queue, at.memory, CL_TRUE, at.offset + offset, size, data, 0, nullptr, nullptr),
            "reading a tensor")) {
        // The interface cannot report errors: fill with NaN, which the engine checks for in logits.
        std::memset(data, 0xff, size);
    }
}

bool copy_tensor(ggml_backend_buffer_t buffer, const ggml_tensor * from, ggml_tensor * to) {
    const ggml_tensor * owner = from->view_src != nullptr ? from->view_src : from;
    if (owner->buffer->iface.free_buffer != free_buffer || of(owner->buffer).device != of(buffer).device) return false;
    Device & device = *of(buffer).device;
    const Lock lock(device.mutex);
    const Place a = place(from), b = place(to);
    const size_t n = ggml_nbytes(from);
    return ok(clEnqueueCopyBuffer(device.queue, a.memory, b.memory, a.offset, b.offset, n, 0, nullptr, nullptr),
              "copying a tensor");
}

// --- buffer type

Device & device_of(ggml_backend_dev_t dev) { return *static_cast<Device *>(dev->context); }
Device & device_of(ggml_backend_buffer_type_t type) { return device_of(type->device); }

const char * type_name(ggml_backend_buffer_type_t type) { return device_of(type).name.c_str(); }

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    Device & device = device_of(type);
    cl_mem memory = device.allocate(size);
    if (memory == nullptr) return nullptr;
    ggml_backend_buffer_i iface{};
    iface.free_buffer = free_buffer;
    iface.get_base = get_base;
    iface.memset_tensor = memset_tensor;
    iface.set_tensor = set_tensor;
    iface.get_tensor = get_tensor;
    iface.cpy_tensor = copy_tensor;
    iface.clear = clear;
    return ggml_backend_buffer_init(type, iface, new Buffer{&device, memory, size}, size);
}

size_t alignment(ggml_backend_buffer_type_t type) { return device_of(type).alignment; }
size_t max_size(ggml_backend_buffer_type_t type) { return device_of(type).largest_buffer; }

ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t dev) {
    static std::mutex mutex;
    static auto & types = *new std::map<ggml_backend_dev_t, ggml_backend_buffer_type>();
    const std::lock_guard<std::mutex> lock(mutex);
    auto & type = types[dev];
    if (type.device == nullptr) {
        type.iface.get_name = type_name;
        type.iface.alloc_buffer = allocate;
        type.iface.get_alignment = alignment;
        type.iface.get_max_size = max_size;
        type.device = dev;
    }
    return &type;
}

// --- stream

const char * backend_name(ggml_backend_t backend) { return device_of(backend->device).name.c_str(); }
void free_backend(ggml_backend_t backend) { delete backend; }

void synchronize(ggml_backend_t backend) {
    Device & device = device_of(backend->device);
    const Lock lock(device.mutex);
    ok(clFinish(device.queue), "waiting for the device");
}

bool is_nothing(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE: return true;
        default: return ggml_is_empty(op) || (op->flags & GGML_TENSOR_FLAG_COMPUTE) == 0;
    }
}

bool run(Device & device, ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID: return run_product(device, op);
        case GGML_OP_FLASH_ATTN_EXT: return run_attention(device, op);
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_SUM_ROWS:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_ROPE:
        case GGML_OP_ARGSORT:
        case GGML_OP_GET_ROWS:
        case GGML_OP_SET_ROWS: return run_rows(device, op);
        default: return run_elementwise(device, op);
    }
}

bool supports(ggml_backend_dev_t dev, const ggml_tensor * op);

ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) {
    Device & device = device_of(backend->device);
    const Lock lock(device.mutex);
    no_room();
    for (int i = 0; i < graph->n_nodes; i++) {
        ggml_tensor * op = graph->nodes[i];
        if (is_nothing(op)) continue;
        if (!supports(backend->device, op)) {  // an engine that uses this device over RPC cannot query it
            GGML_LOG_ERROR("clblast: %s cannot compute %s of %s\n", device.name.c_str(), ggml_op_desc(op), op->name);
            return GGML_STATUS_FAILED;
        }
        if (!run(device, op)) {
            if (no_room()) return GGML_STATUS_ALLOC_FAILED;
            GGML_LOG_ERROR("clblast: %s of %s failed\n", ggml_op_desc(op), op->name);
            return GGML_STATUS_FAILED;
        }
    }
    return ok(clFlush(device.queue), "starting the computation") ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

// --- device

const char * device_name(ggml_backend_dev_t dev) { return device_of(dev).name.c_str(); }
const char * device_description(ggml_backend_dev_t dev) { return device_of(dev).description.c_str(); }

void device_memory(ggml_backend_dev_t dev, size_t * free, size_t * total) {
    const Device & device = device_of(dev);
    *total = device.total_memory;
    *free = device.total_memory - std::min(device.used_memory, device.total_memory);
}

// ggml would give a device of type ACCEL weights, but neither the KV cache nor attention.
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void device_props(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props = {};
    props->name = device_name(dev);
    props->description = device_description(dev);
    props->type = device_type(dev);
    device_memory(dev, &props->memory_free, &props->memory_total);
}

ggml_backend_t init_backend(ggml_backend_dev_t dev, const char *) {
    if (!device_of(dev).open()) return nullptr;
    static ggml_guid guid = {0x67, 0x67, 0x73, 0x65, 0x72, 0x76, 0x65, 0x2d, 0x63, 0x6c, 0x62, 0x6c, 0x61, 0x73, 0x74, 1};
    ggml_backend_i iface{};
    iface.get_name = backend_name;
    iface.free = free_backend;
    iface.synchronize = synchronize;
    iface.graph_compute = compute;
    return new ggml_backend{&guid, iface, dev, nullptr};
}

bool supports(ggml_backend_dev_t dev, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE: return true;
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID: return supports_product(device_of(dev), op);
        case GGML_OP_FLASH_ATTN_EXT: return supports_attention(op);
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_SUM_ROWS:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_ROPE:
        case GGML_OP_ARGSORT:
        case GGML_OP_GET_ROWS:
        case GGML_OP_SET_ROWS: return supports_rows(op);
        default: return supports_elementwise(op);
    }
}

bool supports_type(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type) {
    return type->iface.get_name == type_name && type->device == dev;
}

// --- registry

const char * registry_name(ggml_backend_reg_t) { return "CLBlast"; }
size_t device_count(ggml_backend_reg_t) { return devices().size(); }

ggml_backend_dev_t get_device(ggml_backend_reg_t registry, size_t index) {
    static auto & made = *new std::map<size_t, ggml_backend_device>();
    auto & dev = made[index];
    if (dev.context == nullptr) {
        dev.iface.get_name = device_name;
        dev.iface.get_description = device_description;
        dev.iface.get_memory = device_memory;
        dev.iface.get_type = device_type;
        dev.iface.get_props = device_props;
        dev.iface.init_backend = init_backend;
        dev.iface.get_buffer_type = buffer_type;
        dev.iface.supports_op = supports;
        dev.iface.supports_buft = supports_type;
        dev.reg = registry;
        dev.context = devices().at(index).get();
    }
    return &dev;
}

ggml_backend_reg_t registry() {
    static ggml_backend_reg found{};
    found.api_version = GGML_BACKEND_API_VERSION;
    found.iface.get_name = registry_name;
    found.iface.get_device_count = device_count;
    found.iface.get_device = get_device;
    return &found;
}

}  // namespace

}  // namespace clblast_backend

GGML_BACKEND_DL_IMPL(clblast_backend::registry)
