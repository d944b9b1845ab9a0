// Keeping memory from being swapped out, and having it in large pages, on every system.
#pragma once

#include <cstddef>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
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

// Whether the system agreed to use large pages from `address` on, where nothing was written yet. Weights are read
// once per token, far more of them than the processor remembers addresses of small pages; that halves their speed.
inline bool prefer_large_pages(void * address, size_t size) {
#if defined(MADV_HUGEPAGE)
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (page - (size_t)address % page) % page;
    return size > before && madvise((char *)address + before, size - before, MADV_HUGEPAGE) == 0;
#else
    (void)address, (void)size;
    return false;
#endif
}

}  // namespace ggserve
