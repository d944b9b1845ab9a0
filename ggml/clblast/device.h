// One OpenCL device: its context, queue, compiled programs and scratch memory.
#pragma once

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace clblast_backend {

// Work items per group; the same as in kernels/common.cl.
constexpr size_t LOCAL = 64;

struct Device {
    cl_platform_id platform = nullptr;
    cl_device_id id = nullptr;
    std::string name, description, driver;
    size_t total_memory = 0, largest_buffer = 0, alignment = 128;
    size_t used_memory = 0;  // by our buffers; OpenCL does not report what other programs use

    // One in-order queue: writes, kernels and reads happen in the order of their submission. Kernel objects hold
    // their arguments, so only one thread at a time may enqueue; `mutex` ensures that.
    cl_context context = nullptr;
    cl_command_queue queue = nullptr;
    std::recursive_mutex mutex;

    // False, with a log line, if the device cannot be used.
    bool open();
    // The kernel of a program (kernels/PROGRAM.cl), compiled with TYPE if `type` is not empty; null if that fails.
    cl_kernel kernel(const std::string & program, const std::string & type, const std::string & name);
    // At least `size` bytes that the next operations may overwrite; null if there is no room.
    cl_mem scratch(size_t size);
    cl_mem allocate(size_t size);
    void release(cl_mem memory, size_t size);

  private:
    cl_program build(const std::string & program, const std::string & type);
    cl_program compile(const std::string & source, const std::string & options, const std::string & label);

    std::map<std::string, cl_program> programs_;
    std::map<std::string, cl_kernel> kernels_;
    cl_mem scratch_ = nullptr;
    size_t scratch_size_ = 0;
    bool failed_ = false;
};

// True if `code` is success; otherwise logs what failed, with the code.
bool ok(cl_int code, const char * what);
// Whether an allocation has failed on this thread since the last call.
bool no_room();

// All usable devices, enumerated once. CPUs are excluded unless GGSERVE_CLBLAST_CPU is 1.
// GGSERVE_CLBLAST_MEMORY: limit in bytes per device, because OpenCL does not report what other programs use.
const std::vector<std::unique_ptr<Device>> & devices();

// The text of kernels/NAME.cl, embedded at build time.
const char * kernel_source(const std::string & name);

}  // namespace clblast_backend
