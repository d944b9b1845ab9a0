// Kernel launches with tensors as arguments.
#pragma once

#include "device.h"
#include "ggml.h"

#include <string>
#include <type_traits>

namespace clblast_backend {

struct Buffer {
    Device * device;
    cl_mem memory;
    size_t size;
};

// Base of tensor addresses; they are offsets into the buffer and never dereferenced.
inline char * const BASE = reinterpret_cast<char *>(0x1000);

// The location of a tensor's data.
struct Place {
    cl_mem memory;
    size_t offset;
};
Place place(const ggml_tensor * tensor);

// A launch under construction. `run` returns false if anything failed; the failure is logged.
class Call {
  public:
    Call(Device & device, const std::string & program, const std::string & name, const std::string & type = "")
        : device_(device), name_(name), kernel_(device.kernel(program, type, name)) {}

    // A tensor: its buffer, and offset, sizes and strides.
    Call & operator<<(const ggml_tensor * tensor);
    Call & operator<<(cl_mem memory) { return set(&memory, sizeof(memory)); }
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> Call & operator<<(T value) {
        return set(&value, sizeof(value));
    }

    // `items` work items, in groups of LOCAL.
    bool run(size_t items);
    // `groups` x `rows` x `layers` groups of LOCAL items.
    bool run_groups(size_t groups, size_t rows = 1, size_t layers = 1);

  private:
    Call & set(const void * value, size_t size);
    bool enqueue(const size_t * global, const size_t * local);

    Device & device_;
    std::string name_;
    cl_kernel kernel_;
    cl_uint n_ = 0;
    bool good_ = true;
};

}  // namespace clblast_backend
