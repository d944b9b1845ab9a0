#include "launch.h"

#include "ggml-backend-impl.h"

namespace clblast_backend {

Place place(const ggml_tensor * tensor) {
    const ggml_tensor * owner = tensor->view_src != nullptr ? tensor->view_src : tensor;
    const auto * buffer = static_cast<const Buffer *>(owner->buffer->context);
    return {buffer->memory, static_cast<size_t>(static_cast<const char *>(tensor->data) - BASE)};
}

Call & Call::set(const void * value, size_t size) {
    if (kernel_ == nullptr || !good_) return *this;
    good_ = ok(clSetKernelArg(kernel_, n_++, size, value), ("an argument of " + name_).c_str());
    return *this;
}

Call & Call::operator<<(const ggml_tensor * tensor) {
    const Place at = place(tensor);
    cl_ulong16 view{};
    view.s[0] = at.offset;
    for (int i = 0; i < 4; i++) {
        view.s[1 + i] = static_cast<cl_ulong>(tensor->ne[i]);
        view.s[5 + i] = tensor->nb[i];
    }
    set(&at.memory, sizeof(at.memory));
    return set(&view, sizeof(view));
}

bool Call::enqueue(const size_t * global, const size_t * local) {
    if (kernel_ == nullptr || !good_) return false;
    // Always set the group size: some drivers recompile a kernel for every size that they choose themselves.
    return ok(clEnqueueNDRangeKernel(device_.queue, kernel_, 3, nullptr, global, local, 0, nullptr, nullptr),
              name_.c_str());
}

bool Call::run(size_t items) {
    return run_groups((items + LOCAL - 1) / LOCAL);
}

bool Call::run_groups(size_t groups, size_t rows, size_t layers) {
    if (groups == 0 || rows == 0 || layers == 0) return true;
    const size_t global[3] = {groups * LOCAL, rows, layers}, local[3] = {LOCAL, 1, 1};
    return enqueue(global, local);
}

}  // namespace clblast_backend
