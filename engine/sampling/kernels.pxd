"""Externs of kernels/sampling.h and kernels/repetition.h."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libcpp.vector cimport vector


cdef extern from "engine/graph/kernels/sampling.h" namespace "ggserve::sampling" nogil:
    const size_t ALL

    struct Cut:
        float t
        size_t ties

    cppclass Scratch:
        vector[float] row
        vector[float] block_max
        vector[float] row_max
        vector[float] logits
        vector[float] weights
        vector[float] keys
        vector[float] values
        vector[int32_t] ids
        vector[double] probs
        vector[uint64_t] pairs

    Scratch* scratch()
    T* grow[T](vector[T]&, size_t n)
    size_t n_blocks(size_t n)
    uint64_t splitmix(uint64_t z)
    double uniform(uint64_t seed, uint64_t index)
    float max_of(const float* x, size_t n)
    bint block_maxima(const float* x, size_t n, float* out)
    size_t argmax(const float* x, size_t n, const float* block_max)
    void apply_mask(float* x, size_t n, const uint32_t* mask)
    void moments(const float* x, size_t n, double* mean, double* deviation)
    double sum_exp(const float* x, size_t n, float top)
    double weigh(const float* x, size_t n, float top, float scale, Scratch* s)
    size_t pick(const Scratch* s, size_t n, double total, double u)
    size_t gather(const float* keys, const float* x, const int32_t* ids, size_t n, const float* block_max,
                  Cut cut, float* out, int32_t* out_ids)
    Cut top_cut(const float* x, size_t n, const float* block_max, size_t m, Scratch* s)
    Cut weight_cut(const float* keys, const float* w, size_t n, double target, float lo, float hi, Scratch* s)
    void sort_descending(vector[float]& v, vector[uint64_t]& tmp)
    Cut prefix_cut(const vector[float]& values, size_t m)
    void top_values(const float* x, size_t n, const float* block_max, size_t m, Scratch* s)
    void refresh(const float* x, size_t n, const vector[int32_t]& ids, float* block_max)


cdef extern from "engine/graph/kernels/repetition.h" namespace "ggserve::sampling" nogil:
    float capped(float x)

    cppclass Window:
        size_t size
        float repeat
        float frequency
        float presence
        vector[int32_t] ids
        void add(int32_t token)
        void apply(float* x, const int32_t* candidates, size_t n)

    cppclass Dry:
        double multiplier
        double base
        size_t allowed_length
        size_t last_n
        vector[int32_t] ids
        void add_breaker(const int32_t* tokens, size_t n)
        void add(int32_t token)
        void find()
        void apply(float* x, const int32_t* candidates, size_t n)
