// Passes over a row of logits, for engine/sampling. No allocation per call: buffers live per thread.
//
// The order everywhere is: greater key first, among equal keys the lower index. Every truncation step
// keeps a prefix of that order, so it is described by a `Cut` and nothing has to be sorted to apply it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace ggserve::sampling {

constexpr size_t BLOCK = 64;    // logits that share one entry of the block maxima
constexpr size_t CHUNK = 1024;  // weights that share one partial sum
constexpr size_t LANES = 16;    // independent accumulators: lets the compiler use any vector width
constexpr float INF = std::numeric_limits<float>::infinity();
constexpr size_t ALL = std::numeric_limits<size_t>::max();

// Keep key > t, and of those == t the first `ties`.
struct Cut {
    float t;
    size_t ties;
};

// One per thread rather than one per session: a few MB for a large vocabulary, and it stays in cache.
struct Scratch {
    std::vector<float> row, block_max, row_max, logits, weights, keys, values;
    std::vector<int32_t> ids, buckets;
    std::vector<double> sums, probs;
    std::vector<uint64_t> pairs;
};

inline Scratch *scratch() {
    thread_local Scratch s;
    return &s;
}

// Never shrinks: growing again would clear what is about to be overwritten.
template <class T>
inline T *grow(std::vector<T> &v, size_t n) {
    if (v.size() < n) v.resize(n);
    return v.data();
}

inline size_t n_blocks(size_t n) { return (n + BLOCK - 1) / BLOCK; }

// Random number in [0, 1) for the index-th token of a stream: SplitMix64 (Steele, Lea, Flood 2014, "Fast
// splittable pseudorandom number generators"), whose state is a counter, so no state has to be kept. The
// seed goes through the finaliser first so that no two small seeds walk the same sequence shifted.
inline uint64_t splitmix(uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

inline double uniform(uint64_t seed, uint64_t index) {
    return double(splitmix(splitmix(seed) + index * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

// e^x for x <= 0, about 2 ulp, 0 below -87. libm's expf would cost more than everything else here; loops over
// this one become vector code, for which the clamp has to work on bits (a compiler may not compute floats
// speculatively, they might trap). Range reduction and polynomial of Cephes' expf (Moshier).
inline float exp_neg(float x) {
    const int32_t least = int32_t(0xc2ae0000u);  // -87
    const int32_t in = bits_as<int32_t>(x) | INT32_MIN;  // +0 becomes -0; bits then grow with the magnitude
    const float y = bits_as<float>(in < least ? in : least);
    const float shifted = y * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer, in the low bits
    const float k = shifted - 12582912.0f;
    const float r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const uint32_t scaled = bits_as<uint32_t>(p) + (bits_as<uint32_t>(shifted) << 23);
    return bits_as<float>(scaled & (0u - uint32_t(in < least)));
}

inline float max_of(const float *x, size_t n) {
    float m[LANES];
    std::fill(m, m + LANES, -INF);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    for (; i < n; i++) m[0] = x[i] > m[0] ? x[i] : m[0];
    return *std::max_element(m, m + LANES);
}

// Maxima of blocks. False if a value is NaN or +inf, which no sound model gives.
inline bool block_maxima(const float *x, size_t n, float *out) {
    uint32_t bad = 0;
    size_t b = 0;
    for (; (b + 1) * BLOCK <= n; b++) {
        const float *p = x + b * BLOCK;
        float m[LANES];
        for (size_t j = 0; j < LANES; j++) m[j] = p[j];
        for (size_t i = LANES; i < BLOCK; i += LANES)
            for (size_t j = 0; j < LANES; j++) m[j] = p[i + j] > m[j] ? p[i + j] : m[j];
        for (size_t i = 0; i < BLOCK; i++) bad |= p[i] < INF ? 0u : 1u;
        for (size_t w = LANES / 2; w; w /= 2)
            for (size_t j = 0; j < w; j++) m[j] = m[j] > m[j + w] ? m[j] : m[j + w];
        out[b] = m[0];
    }
    if (b * BLOCK < n) {
        out[b] = max_of(x + b * BLOCK, n - b * BLOCK);
        for (size_t i = b * BLOCK; i < n; i++) bad |= x[i] < INF ? 0u : 1u;
    }
    return bad == 0;
}

// Block maxima of the blocks that hold these tokens, after a change.
inline void refresh(const float *x, size_t n, const std::vector<int32_t> &ids, float *block_max) {
    for (int32_t id : ids) {
        const size_t b = size_t(id) / BLOCK;
        block_max[b] = max_of(x + b * BLOCK, std::min(BLOCK, n - b * BLOCK));
    }
}

// Index of the first of the greatest values.
inline size_t argmax(const float *x, size_t n, const float *block_max) {
    const size_t nb = n_blocks(n);
    const float m = max_of(block_max, nb);
    size_t i = size_t(std::find(block_max, block_max + nb, m) - block_max) * BLOCK;
    while (x[i] != m) i++;
    return i;
}

// Forbids every token whose bit is 0.
inline void apply_mask(float *x, size_t n, const uint32_t *mask) {
    for (size_t i = 0; i < n; i += 32) {
        const uint32_t word = mask[i / 32];
        if (word == 0xffffffffu) continue;
        const size_t end = std::min<size_t>(32, n - i);
        for (size_t j = 0; j < end; j++) x[i + j] = (word >> j) & 1u ? x[i + j] : -INF;
    }
}

// e^((x - top) * scale) of at most CHUNK values, and their sum: two loops, since compilers keep a sum's order.
inline float exp_chunk(const float *x, size_t n, float top, float scale, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = exp_neg((x[i] - top) * scale);
    float acc[LANES] = {}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) acc[j] += out[i + j];
    for (float a : acc) sum += a;
    for (; i < n; i++) sum += out[i];
    return sum;
}

// Mean and standard deviation of what is not -inf.
inline void moments(const float *x, size_t n, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const bool finite = x[i] > -INF;
        count += finite;
        sum += finite ? double(x[i]) : 0.0;
    }
    *mean = sum / double(count);
    for (size_t i = 0; i < n; i++) {
        const double d = x[i] > -INF ? x[i] - *mean : 0.0;
        squares += d * d;
    }
    *deviation = std::sqrt(squares / double(count));
}

inline double sum_exp(const float *x, size_t n, float top) {
    float terms[CHUNK];
    double total = 0;
    for (size_t i = 0; i < n; i += CHUNK) total += exp_chunk(x + i, std::min(CHUNK, n - i), top, 1.0f, terms);
    return total;
}

// The same, scaled, leaving the terms in `weights` and the sum of each chunk in `sums`.
inline double weigh(const float *x, size_t n, float top, float scale, Scratch *s) {
    float *weights = grow(s->weights, n);
    double *sums = grow(s->sums, n / CHUNK + 1), total = 0;
    for (size_t i = 0; i < n; i += CHUNK) {
        sums[i / CHUNK] = exp_chunk(x + i, std::min(CHUNK, n - i), top, scale, weights + i);
        total += sums[i / CHUNK];
    }
    return total;
}

// Index drawn in proportion to the weights that `weigh` left. Weight 0 is never drawn. In index order, not by
// rank: near-equal logits that swap ranks by rounding then still give the same token.
inline size_t pick(const Scratch *s, size_t n, double total, double u) {
    const float *w = s->weights.data();
    double target = u * total;
    size_t c = 0, last = (n - 1) / CHUNK;
    while (c < last && target >= s->sums[c]) target -= s->sums[c++];
    while (c > 0 && s->sums[c] == 0) c--;  // only when rounding carried the target past the end
    size_t chosen = c * CHUNK;
    for (size_t i = c * CHUNK; i < std::min(n, (c + 1) * CHUNK); i++) {
        if (w[i] == 0) continue;
        chosen = i;
        target -= w[i];
        if (target < 0) break;
    }
    return chosen;
}

// Copies what the cut keeps, in index order, dropping -inf. `ids` null: the index is the id. `block_max`
// (of the keys) skips blocks that hold nothing; may be null. Outputs have room for n and may be the inputs.
inline size_t gather(const float *keys, const float *x, const int32_t *ids, size_t n, const float *block_max,
                     Cut cut, float *out, int32_t *out_ids) {
    size_t count = 0, ties = cut.t == -INF ? ALL : cut.ties;
    const float t = std::max(cut.t, -std::numeric_limits<float>::max());
    for (size_t b = 0; b < n; b += BLOCK) {
        if (block_max && block_max[b / BLOCK] < t) continue;
        const size_t m = std::min(BLOCK, n - b);
        uint8_t kept[BLOCK] = {};  // first all comparisons, as vector code, then only the groups with a hit
        uint32_t tied = 0;
        for (size_t i = 0; i < m; i++) kept[i] = keys[b + i] >= t ? 1 : 0;
        for (size_t i = 0; i < m; i++) tied |= keys[b + i] == t ? 1u : 0u;
        if (tied && ties != ALL)
            for (size_t i = 0; i < m; i++)
                if (keys[b + i] == t) ties -= kept[i] = ties > 0;
        for (size_t g = 0; g < m; g += 8) {
            uint64_t any;
            std::memcpy(&any, kept + g, 8);
            if (!any) continue;
            for (size_t i = b + g; i < std::min(b + g + 8, n); i++) {
                out[count] = x[i];
                out_ids[count] = ids ? ids[i] : int32_t(i);
                count += kept[i - b];
            }
        }
    }
    return count;
}

inline Cut cut_at(std::vector<float> &v, size_t m) {
    std::nth_element(v.begin(), v.begin() + (m - 1), v.end(), std::greater<float>());
    const float t = v[m - 1];
    size_t above = 0;
    for (size_t i = 0; i + 1 < m; i++) above += v[i] > t;
    return {t, m - above};
}

// The m greatest, 1 <= m < n. The m-th greatest block maximum bounds the m-th greatest value from below
// (m blocks each hold one at least as great), so for small m only a few blocks are looked at.
inline Cut top_cut(const float *x, size_t n, const float *block_max, size_t m, Scratch *s) {
    std::vector<float> &v = s->values;
    const size_t nb = n_blocks(n);
    if (!block_max || m > nb) {
        v.assign(x, x + n);
        return cut_at(v, m);
    }
    v.assign(block_max, block_max + nb);
    const float bound = cut_at(v, m).t;
    v.clear();
    for (size_t b = 0; b < nb; b++) {
        if (block_max[b] < bound) continue;
        const size_t end = std::min(n, (b + 1) * BLOCK);
        for (size_t i = b * BLOCK; i < end; i++)
            if (x[i] >= bound) v.push_back(x[i]);
    }
    return cut_at(v, m);
}

// Sorts as "greatest float first, then lowest index".
inline uint64_t ranked(float key, size_t index) {
    key += 0.0f;  // -0 and +0 are equal
    uint32_t bits = bits_as<uint32_t>(key);
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
    return uint64_t(~bits) << 32 | uint32_t(index);
}

inline float unranked(uint64_t rank) {
    uint32_t bits = ~uint32_t(rank >> 32);
    return bits_as<float>(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

// The shortest prefix whose weights reach `target`. Keys lie in [lo, hi], give or take rounding. A histogram
// of weights over the keys finds the bucket in which the sum gets there; only that bucket is sorted.
inline Cut weight_cut(const float *keys, const float *w, size_t n, double target, float lo, float hi,
                      Scratch *s) {
    constexpr int32_t BUCKETS = 1024;
    const float scale = n <= 256 || !(hi > lo) ? 0.0f : float(BUCKETS) / (hi - lo);  // 0: one bucket for all
    int32_t *buckets = grow(s->buckets, n);
    for (size_t i = 0; i < n; i++) {
        const float b = (hi - keys[i]) * scale;
        buckets[i] = int32_t(std::min(std::max(b, 0.0f), float(BUCKETS - 1)));
    }
    double cum = 0;
    int32_t at = 0;
    if (scale > 0) {
        double sums[BUCKETS] = {};
        for (size_t i = 0; i < n; i++) sums[buckets[i]] += w[i];
        while (at + 1 < BUCKETS && (sums[at] == 0 || cum + sums[at] < target)) cum += sums[at++];
    }
    std::vector<uint64_t> &pairs = s->pairs;
    pairs.clear();
    for (size_t i = 0; i < n; i++)
        if (buckets[i] == at) pairs.push_back(ranked(keys[i], i));
    if (!std::is_sorted(pairs.begin(), pairs.end())) std::sort(pairs.begin(), pairs.end());
    Cut cut = {-INF, ALL};
    for (size_t j = 0; j < pairs.size(); j++) {
        const size_t i = size_t(uint32_t(pairs[j]));
        cut = {keys[i], j && keys[i] == cut.t ? cut.ties + 1 : 1};
        if ((cum += w[i]) >= target) break;  // never, if rounding left the sum short: then all are kept
    }
    return cut;
}

// Sorts greatest first. Radix for long rows: tail-free sampling needs the shape of the whole tail.
inline void sort_descending(std::vector<float> &v, std::vector<uint64_t> &tmp) {
    const size_t n = v.size();
    if (n < 2048) {
        std::sort(v.begin(), v.end(), std::greater<float>());
        return;
    }
    constexpr size_t DIGITS = 2048;
    if (tmp.size() < 2 * n) tmp.resize(2 * n);
    uint64_t *from = tmp.data(), *to = tmp.data() + n;
    for (size_t i = 0; i < n; i++) from[i] = ranked(v[i], i);
    for (int shift = 32; shift < 64; shift += 11) {
        size_t offsets[DIGITS + 1] = {};
        for (size_t i = 0; i < n; i++) offsets[(from[i] >> shift & (DIGITS - 1)) + 1]++;
        for (size_t d = 1; d < DIGITS; d++) offsets[d] += offsets[d - 1];
        for (size_t i = 0; i < n; i++) to[offsets[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        std::swap(from, to);
    }
    for (size_t i = 0; i < n; i++) v[i] = unranked(from[i]);
}

// The first m, 1 <= m <= size, of values sorted greatest first.
inline Cut prefix_cut(const std::vector<float> &sorted, size_t m) {
    size_t ties = 0;
    while (ties < m && sorted[m - 1 - ties] == sorted[m - 1]) ties++;
    return {sorted[m - 1], ties};
}

// The m greatest that are finite, sorted, with their ids: in `values` and `ids`.
inline void top_values(const float *x, size_t n, const float *block_max, size_t m, Scratch *s) {
    const Cut cut = m < n ? top_cut(x, n, block_max, m, s) : Cut{-INF, 0};
    float *values = grow(s->logits, n);
    int32_t *ids = grow(s->ids, n);
    const size_t count = gather(x, x, nullptr, n, block_max, cut, values, ids);
    s->pairs.clear();
    for (size_t i = 0; i < count; i++) s->pairs.push_back(ranked(values[i], size_t(ids[i])));
    std::sort(s->pairs.begin(), s->pairs.end());
    s->values.clear();
    for (size_t i = 0; i < count; i++) {
        s->values.push_back(unranked(s->pairs[i]));
        ids[i] = int32_t(uint32_t(s->pairs[i]));
    }
}

}  // namespace ggserve::sampling
