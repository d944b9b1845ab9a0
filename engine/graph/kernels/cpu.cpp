#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace ggserve {
namespace {

Cpu detect() {
    Cpu found;
#if defined(__x86_64__)
    unsigned a, b, c, d;
    const auto bit = [](unsigned bits, int i) { return (bits >> i & 1) != 0; };
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return found;  // OSXSAVE
    const bool before = bit(c, 12) && bit(c, 28) && bit(c, 29);       // FMA, AVX, F16C
    unsigned states, high;
    __asm__ volatile("xgetbv" : "=a"(states), "=d"(high) : "c"(0));  // registers that the system saves
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    found.avx2 = before && bit(b, 5) && (states & 0x06) == 0x06;
    found.avx512 = found.avx2 && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && (states & 0xe6) == 0xe6;
    found.avx512vnni = found.avx512 && bit(c, 11);
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avxvnni = found.avx2 && bit(a, 4);
#elif defined(__aarch64__) && defined(__linux__)
    found.dotprod = getauxval(AT_HWCAP) >> 20 & 1;  // ASIMDDP
#elif defined(__aarch64__) && defined(__APPLE__)
    found.dotprod = true;  // all that macOS for arm64 runs on
#endif
    return found;
}

}  // namespace

const Cpu & cpu() {
    static const Cpu found = detect();
    return found;
}

}  // namespace ggserve
