// GGSERVE_TARGET(features) … GGSERVE_TARGET_END: compiles the functions between them for these features.
//
// Nothing between them may use a function that other files compile too, such as inline ones of the standard library:
// the linker keeps one copy for all. Intrinsics come from here, ahead of the target, with the standard headers they use.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define GGSERVE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define GGSERVE_TARGET(features) \
    GGSERVE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GGSERVE_TARGET_END _Pragma("clang attribute pop")
#else
#define GGSERVE_TARGET(features) GGSERVE_PRAGMA(GCC target(features))
#define GGSERVE_TARGET_END
#endif
