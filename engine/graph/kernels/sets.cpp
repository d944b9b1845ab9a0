#include "sets.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu.h"
#include "matmul/layout.h"
#include "vectors/vectors.h"

namespace ggserve {

#if defined(__x86_64__)
extern const KernelSet avx512vnni_kernels, avx512_kernels, avxvnni_kernels, avx2_kernels;
extern const Vectors avx512_vectors, avx2_vectors;
#elif defined(GGSERVE_DOTPROD)
extern const KernelSet neon_kernels;
#endif
extern const KernelSet portable_kernels;
extern const Vectors baseline_vectors;

namespace {

const std::vector<InstructionSet> & candidates() {  // best first
    static const std::vector<InstructionSet> all = {
#if defined(__x86_64__)
        {&avx512vnni_kernels, &avx512_vectors, cpu().avx512vnni},
        {&avx512_kernels, &avx512_vectors, cpu().avx512},
        {&avxvnni_kernels, &avx2_vectors, cpu().avxvnni},
        {&avx2_kernels, &avx2_vectors, cpu().avx2},
#elif defined(GGSERVE_DOTPROD)
        {&neon_kernels, &baseline_vectors, cpu().dotprod},
#endif
        {&portable_kernels, &baseline_vectors, true},
    };
    return all;
}

std::atomic<const InstructionSet *> forced{nullptr};

}  // namespace

const InstructionSet & in_force() {
    if (const InstructionSet * set = forced.load(std::memory_order_relaxed)) return *set;
    static const InstructionSet & best = *std::find_if(candidates().begin(), candidates().end(), [](const auto & each) {
        return each.is_supported;
    });
    return best;
}

std::vector<const char *> compiled_sets() {
    std::vector<const char *> names;
    for (const InstructionSet & each : candidates()) names.push_back(each.products->name);
    return names;
}

std::vector<const char *> supported_sets() {
    std::vector<const char *> names;
    for (const InstructionSet & each : candidates())
        if (each.is_supported) names.push_back(each.products->name);
    return names;
}

const char * set_in_force() { return in_force().products->name; }

bool use_set(const char * name) {
    for (const InstructionSet & each : candidates()) {
        if (each.is_supported && !strcmp(each.products->name, name)) {
            forced.store(&each, std::memory_order_relaxed);
            return true;
        }
    }
    return false;
}

const Vectors * vectors_in_force() { return in_force().vectors; }

}  // namespace ggserve
