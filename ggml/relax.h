/* Included before ggml-cpu.c (CMakeLists.txt): its threads wait for each other in loops that call
 * ggml_thread_cpu_relax(). Stock loops only pause, so where other work has a core, a thread that waits keeps
 * the one it waits for off the other core until its time slice ends, at every barrier. Now and then these
 * yield the core. An uncontended yield takes less than a microsecond. */
#ifndef GGSERVE_RELAX_H
#define GGSERVE_RELAX_H

#define GGSERVE_PAUSES_PER_YIELD 512 /* about 10 microseconds */

#if defined(_WIN32)
__declspec(dllimport) int __stdcall SwitchToThread(void);
#else
int sched_yield(void);
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#define GGSERVE_THREAD_LOCAL __declspec(thread)
#else
#define GGSERVE_THREAD_LOCAL __thread
#endif

static inline void ggserve_relax_(void) {
    static GGSERVE_THREAD_LOCAL unsigned n_pauses;
#if defined(__aarch64__) && !defined(_MSC_VER)
    __asm__ volatile("yield" ::: "memory");
#elif defined(_MSC_VER) && defined(_M_ARM64)
    __yield();
#elif defined(_MSC_VER)
    _mm_pause();
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    if (++n_pauses % GGSERVE_PAUSES_PER_YIELD == 0) {
#if defined(_WIN32)
        SwitchToThread();
#else
        sched_yield();
#endif
    }
}

/* A call, `ggml_thread_cpu_relax()`, becomes `ggserve_relax_()`; ggml's own definition, whose parameters are
 * `(void)`, becomes that of the unused `ggserve_relax_void`. */
#define ggml_thread_cpu_relax(parameters) ggserve_relax_##parameters(parameters)

#endif
