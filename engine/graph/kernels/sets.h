// The instruction sets that kernels were compiled for, and the choice of one: for products (matmul/) and for operations
// on vectors of floats (vectors/) together.
#pragma once

#include <vector>

namespace ggserve {

struct KernelSet;
struct Vectors;

struct InstructionSet {
    const KernelSet * products;
    const Vectors * vectors;
    bool is_supported;  // by this processor
};

// The one in force: the best supported one until `use_set`.
const InstructionSet & in_force();

// The names of the sets that were compiled in, best first, and of those among them that this processor can run.
std::vector<const char *> compiled_sets();
std::vector<const char *> supported_sets();

const char * set_in_force();

// False for a name that is not supported. Layouts are the same for all sets: packed weights stay valid.
bool use_set(const char * name);

// Of the set in force.
const Vectors * vectors_in_force();

}  // namespace ggserve
