#include "device.h"

#include "cache.h"
#include "ggml.h"
#include "ggml-impl.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace clblast_backend {

namespace {
thread_local bool had_no_room = false;
}

bool ok(cl_int code, const char * what) {
    if (code == CL_SUCCESS) return true;
    if (code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_HOST_MEMORY) had_no_room = true;
    GGML_LOG_ERROR("clblast: %s failed with OpenCL error %d\n", what, code);
    return false;
}

bool no_room() { return std::exchange(had_no_room, false); }

namespace {

std::string text(cl_device_id id, cl_device_info what) {
    size_t n = 0;
    if (clGetDeviceInfo(id, what, 0, nullptr, &n) != CL_SUCCESS || n == 0) return "";
    std::string found(n, '\0');
    clGetDeviceInfo(id, what, n, found.data(), nullptr);
    found.resize(std::strlen(found.c_str()));
    return found;
}

template <class T> T number(cl_device_id id, cl_device_info what) {
    T found{};
    clGetDeviceInfo(id, what, sizeof(found), &found, nullptr);
    return found;
}

bool usable(cl_device_id id) {
    // Kernels need work groups of LOCAL items, 1024 bytes of arguments, and a compiler.
    return number<size_t>(id, CL_DEVICE_MAX_WORK_GROUP_SIZE) >= LOCAL &&
           number<size_t>(id, CL_DEVICE_MAX_PARAMETER_SIZE) >= 1024 && number<cl_bool>(id, CL_DEVICE_AVAILABLE) &&
           number<cl_bool>(id, CL_DEVICE_COMPILER_AVAILABLE) && number<cl_bool>(id, CL_DEVICE_ENDIAN_LITTLE);
}

std::vector<std::unique_ptr<Device>> find() {
    std::vector<std::unique_ptr<Device>> found;
    const char * cpus = std::getenv("GGSERVE_CLBLAST_CPU");
    cl_device_type kinds = CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_ACCELERATOR;
    if (cpus != nullptr && std::strcmp(cpus, "1") == 0) kinds |= CL_DEVICE_TYPE_CPU;
    const char * limit = std::getenv("GGSERVE_CLBLAST_MEMORY");
    const size_t asked = limit != nullptr ? std::strtoull(limit, nullptr, 10) : 0;
    const size_t most = asked != 0 ? asked : SIZE_MAX;
    cl_uint n_platforms = 0;
    if (clGetPlatformIDs(0, nullptr, &n_platforms) != CL_SUCCESS) return found;
    std::vector<cl_platform_id> platforms(n_platforms);
    clGetPlatformIDs(n_platforms, platforms.data(), nullptr);
    for (cl_platform_id platform : platforms) {
        cl_uint n = 0;
        if (clGetDeviceIDs(platform, kinds, 0, nullptr, &n) != CL_SUCCESS) continue;
        std::vector<cl_device_id> ids(n);
        clGetDeviceIDs(platform, kinds, n, ids.data(), nullptr);
        for (cl_device_id id : ids) {
            if (!usable(id)) continue;
            auto device = std::make_unique<Device>();
            device->platform = platform;
            device->id = id;
            device->name = "CLBlast" + std::to_string(found.size());
            device->description = text(id, CL_DEVICE_NAME);
            device->driver = text(id, CL_DEVICE_VENDOR) + " " + text(id, CL_DRIVER_VERSION) + " " +
                             text(id, CL_DEVICE_VERSION);
            device->total_memory = std::min<size_t>(number<cl_ulong>(id, CL_DEVICE_GLOBAL_MEM_SIZE), most);
            device->largest_buffer = number<cl_ulong>(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
            found.push_back(std::move(device));
        }
    }
    return found;
}

}  // namespace

const std::vector<std::unique_ptr<Device>> & devices() {
    // Never destroyed: drivers may be unloaded before static destructors run.
    static auto & found = *new std::vector<std::unique_ptr<Device>>(find());
    return found;
}

bool Device::open() {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (context != nullptr) return true;
    if (failed_) return false;
    cl_int code = CL_SUCCESS;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties) platform, 0};
    context = clCreateContext(properties, 1, &id, nullptr, nullptr, &code);
    if (ok(code, "creating a context")) {
        queue = clCreateCommandQueue(context, id, 0, &code);
        if (ok(code, "creating a queue")) return true;
        clReleaseContext(context);
    }
    context = nullptr;
    failed_ = true;
    return false;
}

cl_mem Device::allocate(size_t size) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (!open() || size > total_memory - std::min(used_memory, total_memory)) return nullptr;
    cl_int code = CL_SUCCESS;
    cl_mem memory = clCreateBuffer(context, CL_MEM_READ_WRITE, std::max<size_t>(size, 1), nullptr, &code);
    if (code != CL_SUCCESS) return nullptr;  // ggml reports which device ran out of memory
    // Most drivers allocate memory on the first write; write now, so that allocation fails here and not later.
    const cl_uchar zero = 0;
    code = clEnqueueFillBuffer(queue, memory, &zero, 1, 0, std::max<size_t>(size, 1), 0, nullptr, nullptr);
    if (code == CL_SUCCESS) code = clFinish(queue);
    if (code != CL_SUCCESS) {
        clReleaseMemObject(memory);
        return nullptr;
    }
    used_memory += size;
    return memory;
}

void Device::release(cl_mem memory, size_t size) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    clReleaseMemObject(memory);
    used_memory -= size;
}

cl_mem Device::scratch(size_t size) {
    if (size <= scratch_size_) return scratch_;
    if (scratch_ != nullptr) {
        clFinish(queue);
        release(scratch_, scratch_size_);
    }
    scratch_ = allocate(size);
    scratch_size_ = scratch_ != nullptr ? size : 0;
    if (scratch_ == nullptr) {
        GGML_LOG_ERROR("clblast: %s: cannot allocate %zu bytes of scratch memory\n", name.c_str(), size);
        had_no_room = true;
    }
    return scratch_;
}

cl_kernel Device::kernel(const std::string & program, const std::string & type, const std::string & name) {
    const std::string key = program + " " + type + " " + name;
    if (auto known = kernels_.find(key); known != kernels_.end()) return known->second;
    cl_program built = build(program, type);
    cl_kernel made = nullptr;
    if (built != nullptr) {
        cl_int code = CL_SUCCESS;
        made = clCreateKernel(built, name.c_str(), &code);
        if (!ok(code, ("creating the kernel " + name).c_str())) made = nullptr;
    }
    return kernels_[key] = made;
}

cl_program Device::build(const std::string & program, const std::string & type) {
    const std::string key = program + " " + type;
    if (auto known = programs_.find(key); known != programs_.end()) return known->second;
    std::string source = kernel_source("common");
    if (!type.empty()) source += kernel_source("blocks");
    source += kernel_source(program);
    return programs_[key] = compile(source, type.empty() ? "" : "-DTYPE=" + type, key);
}

cl_program Device::compile(const std::string & source, const std::string & options, const std::string & label) {
    const ProgramCache cache(description + "\n" + driver + "\n" + options + "\n" + source);
    cl_int code = CL_SUCCESS;
    if (const std::string binary = cache.read(); !binary.empty()) {
        const auto * bytes = reinterpret_cast<const unsigned char *>(binary.data());
        const size_t size = binary.size();
        cl_program made = clCreateProgramWithBinary(context, 1, &id, &size, &bytes, nullptr, &code);
        if (code == CL_SUCCESS && clBuildProgram(made, 1, &id, "", nullptr, nullptr) == CL_SUCCESS) return made;
        if (made != nullptr) clReleaseProgram(made);  // a binary that the driver no longer accepts
    }
    const char * text = source.c_str();
    cl_program made = clCreateProgramWithSource(context, 1, &text, nullptr, &code);
    if (!ok(code, "creating a program")) return nullptr;
    if (clBuildProgram(made, 1, &id, options.c_str(), nullptr, nullptr) != CL_SUCCESS) {
        size_t n = 0;
        clGetProgramBuildInfo(made, id, CL_PROGRAM_BUILD_LOG, 0, nullptr, &n);
        std::string log(n, '\0');
        clGetProgramBuildInfo(made, id, CL_PROGRAM_BUILD_LOG, n, log.data(), nullptr);
        GGML_LOG_ERROR("clblast: compiling %s for %s failed: %s\n", label.c_str(), description.c_str(), log.c_str());
        clReleaseProgram(made);
        return nullptr;
    }
    size_t size = 0;
    if (clGetProgramInfo(made, CL_PROGRAM_BINARY_SIZES, sizeof(size), &size, nullptr) == CL_SUCCESS && size > 0) {
        std::string binary(size, '\0');
        auto * bytes = reinterpret_cast<unsigned char *>(binary.data());
        if (clGetProgramInfo(made, CL_PROGRAM_BINARIES, sizeof(bytes), &bytes, nullptr) == CL_SUCCESS) {
            cache.write(binary);
        }
    }
    return made;
}

}  // namespace clblast_backend
