// Keeping memory from being swapped out, on every system.
#pragma once

#include <cstddef>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace ggserve {

// Whether the system agreed to keep `size` bytes from `address` on in memory.
inline bool lock_memory(void * address, size_t size) {
#if defined(_WIN32)
    return VirtualLock(address, size) != 0;
#else
    return mlock(address, size) == 0;
#endif
}

}  // namespace ggserve
