// Flash attention (Dao 2022, arXiv 2205.14135: one pass, running maximum and sum) for the CPU.
//
// The KV cells of a sequence lie anywhere in the pool, so a tile of them is gathered and converted to
// F32 once, and then used by all queries that share its KV head: the heads of the group times the new
// rows. Each such query is a "lane". With many lanes the lanes fill the vectors, and K and V elements
// are broadcast: no horizontal sums, no transposition. With few, the head dimension fills the vectors.
// Both do the same additions in the same order, so that a lane's result is the same to the bit whatever
// else is in its unit: alone, in company, as a part of a prompt or as the next token.
#pragma once

#include "simd.h"

namespace ggserve {
namespace {

constexpr int TILE = 64;       // cells per tile
constexpr int MAX_LANES = 64;  // queries per unit of work
constexpr int MAX_VECTORS = MAX_LANES / W;
constexpr float LOWEST = -1e30f;

struct Lane {
    const float * q;  // [d]
    float * out;      // [dv]
    int32_t position;
    int32_t first, last;  // the positions that it sees
    float slope;
    float highest, total;  // of the softmax, to begin with
};

// Scratch of one thread, kept between calls.
struct Scratch {
    float * memory = nullptr;
    size_t size = 0;
    float *q, *k, *v, *s, *o;
    float highest[MAX_LANES], total[MAX_LANES];

    ~Scratch() { free(memory); }

    void layout(int d, int dv) {
        const size_t sizes[] = {(size_t)d * MAX_LANES, (size_t)TILE * d, (size_t)TILE * dv, (size_t)TILE * MAX_LANES,
                                (size_t)dv * MAX_LANES};
        float ** const parts[] = {&q, &k, &v, &s, &o};
        size_t n = W;
        for (size_t part : sizes) n += part;
        if (size < n) {
            free(memory);
            memory = (float *)calloc(size = n, sizeof(float));
            if (!memory) GGML_ABORT("attention: no memory for %zu floats", n);
        }
        float * at = (float *)(((uintptr_t)memory + sizeof(vf) - 1) / sizeof(vf) * sizeof(vf));
        for (int i = 0; i < 5; i++) { *parts[i] = at; at += sizes[i]; }
    }
};

struct Unit {
    const Attention * op;
    const Sequence * seq;
    const ggml_tensor *k, *v;
    int kv_head, d, dv, dp, dvp;  // dp, dvp: rounded up to a vector; the tail of a tile's row is zero
    int n_lanes, vectors;
    const float * values;  // a tile of V: row j at j * stride
    int stride;
    Lane lanes[MAX_LANES];
};

float slope_of(float max_bias, int head, int n_head) {
    if (max_bias <= 0) return 0.0f;
    const int n = 1 << (int)floor(log2((double)n_head));
    const float m0 = powf(2.0f, -max_bias / n), m1 = powf(2.0f, -max_bias / 2.0f / n);
    return head < n ? powf(m0, (float)(head + 1)) : powf(m1, (float)(2 * (head - n) + 1));
}

void gather(const ggml_tensor * cache, int kv_head, int d, int dp, const int32_t * cells, int n, float * tile) {
    const size_t head = ggml_row_size(cache->type, d) * kv_head;
    const size_t size = ggml_row_size(cache->type, d);
    const char * base = (const char *)cache->data + head;
    for (int j = 0; j < n; j++) {
        if (j + 8 < n)  // the hardware cannot guess where the next cell lies
            for (size_t line = 0; line < size; line += 64)
                __builtin_prefetch(base + (size_t)cells[j + 8] * cache->nb[1] + line);
        float * row = tile + (size_t)j * dp;
        to_float(cache->type, base + (size_t)cells[j] * cache->nb[1], row, d);
        for (int i = d; i < dp; i++) row[i] = 0.0f;
    }
}

// The first position that a row sees.
inline int first_seen(const Attention & op, int position) {
    if (op.window <= 0) return 0;
    if (op.chunked) return position - position % op.window;
    return greatest(0, position - (op.causal ? op.window - 1 : op.window / 2));
}

// The last one; end is that of its sequence.
inline int last_seen(const Attention & op, int position, int end) {
    if (op.causal) return position;
    return op.window > 0 ? least(end, position + op.window / 2) : end;
}

// A score after scaling: soft cap, ALiBi, mask.
inline float adjusted(const Attention & op, const Lane & lane, float s, int position) {
    if (position < lane.first || position > lane.last) return -INFINITY;
    if (op.softcap > 0) s = op.softcap * tanhf(s / op.softcap);
    return s - lane.slope * abs(lane.position - position);
}

// ---- many lanes: vectors run over lanes. s [TILE][LANES], q [d][LANES], o [dv][LANES]; LANES = NV * W.

// acc = q k over the dimensions r, r + STRIDE, …, added as the vectors of tile_of_dims are: W partial sums, then halves.
template <int NV, int J, int STRIDE>
inline void partial_scores(const Unit & u, const Scratch & t, int j, int r, vf (&acc)[J][NV]) {
    constexpr int lanes = NV * W;
    if constexpr (STRIDE == W) {
        for (int b = 0; b < J; b++)
            for (int n = 0; n < NV; n++) acc[b][n] = vf{};
        for (int i = r; i < u.d; i += W) {
            vf q[NV];
            for (int n = 0; n < NV; n++) q[n] = load(t.q + (size_t)i * lanes + n * W);
            for (int b = 0; b < J; b++) {
                const vf k = splat(t.k[(size_t)(j + b) * u.dp + i]);
                for (int n = 0; n < NV; n++) acc[b][n] = madd(q[n], k, acc[b][n]);
            }
        }
    } else {
        vf other[J][NV];
        partial_scores<NV, J, 2 * STRIDE>(u, t, j, r, other);
        partial_scores<NV, J, 2 * STRIDE>(u, t, j, r + STRIDE, acc);
        for (int b = 0; b < J; b++)
            for (int n = 0; n < NV; n++) acc[b][n] += other[b][n];
    }
}

template <int NV, int J>
inline void scores_block(const Unit & u, const Scratch & t, int j) {
    vf acc[J][NV];
    partial_scores<NV, J, 1>(u, t, j, 0, acc);
    for (int b = 0; b < J; b++)
        for (int n = 0; n < NV; n++) store(t.s + (size_t)(j + b) * NV * W + n * W, acc[b][n]);
}

template <int NV, int I>
inline void values_block(const Unit & u, const Scratch & t, int n_cells, int i, const vf * alpha) {
    const int lanes = NV * W;
    vf acc[I][NV];
    for (int b = 0; b < I; b++)
        for (int n = 0; n < NV; n++) acc[b][n] = load(t.o + (size_t)(i + b) * lanes + n * W) * alpha[n];
    for (int j = 0; j < n_cells; j++) {
        vf p[NV];
        for (int n = 0; n < NV; n++) p[n] = load(t.s + (size_t)j * lanes + n * W);
        for (int b = 0; b < I; b++) {
            const vf v = splat(u.values[(size_t)j * u.stride + i + b]);
            for (int n = 0; n < NV; n++) acc[b][n] = madd(p[n], v, acc[b][n]);
        }
    }
    for (int b = 0; b < I; b++)
        for (int n = 0; n < NV; n++) store(t.o + (size_t)(i + b) * lanes + n * W, acc[b][n]);
}

template <int NV>
void tile_of_lanes(const Unit & u, Scratch & t, int begin, int n_cells, bool all_visible) {
    const Attention & op = *u.op;
    const int lanes = NV * W;
    constexpr int J = NV == 1 ? 12 : NV == 2 ? 10 : 6;  // as many accumulators as registers hold
    constexpr int JJ = W == 16 ? J : (J > 6 ? 6 : 3);
    int j = 0;
    for (; j + JJ <= n_cells; j += JJ) scores_block<NV, JJ>(u, t, j);
    for (; j < n_cells; j++) scores_block<NV, 1>(u, t, j);
    if (!all_visible || op.softcap > 0 || op.max_bias > 0)
        for (j = 0; j < n_cells; j++)
            for (int m = 0; m < u.n_lanes; m++)
                t.s[(size_t)j * lanes + m] = adjusted(op, u.lanes[m], t.s[(size_t)j * lanes + m], begin + j);
    vf alpha[NV];
    for (int n = 0; n < NV; n++) {
        const vf old = load(t.highest + n * W);
        vf high = old;
        for (j = 0; j < n_cells; j++) high = maximum(high, load(t.s + (size_t)j * lanes + n * W));
        alpha[n] = exp_negative(old - high);
        vf total[W] = {};
        for (j = 0; j < n_cells; j++) {
            const vf p = exp_negative(load(t.s + (size_t)j * lanes + n * W) - high);
            store(t.s + (size_t)j * lanes + n * W, p);
            total[j % W] += p;
        }
        for (int half = W / 2; half; half /= 2)
            for (int i = 0; i < half; i++) total[i] += total[i + half];
        store(t.highest + n * W, high);
        store(t.total + n * W, load(t.total + n * W) * alpha[n] + total[0]);
    }
    int i = 0;
    for (; i + JJ <= u.dv; i += JJ) values_block<NV, JJ>(u, t, n_cells, i, alpha);
    for (; i < u.dv; i++) values_block<NV, 1>(u, t, n_cells, i, alpha);
}

// ---- few lanes: vectors run over the head dimension. s [LANES][TILE], q [LANES][dp], o [LANES][dvp].

void tile_of_dims(const Unit & u, Scratch & t, int begin, int n_cells, bool all_visible) {
    const Attention & op = *u.op;
    for (int m = 0; m < u.n_lanes; m++) {
        const float * q = t.q + (size_t)m * u.dp;
        float * s = t.s + (size_t)m * TILE;
        float high = t.highest[m];
        int j = 0;
        for (; j + 4 <= n_cells; j += 4) {
            const float * k = t.k + (size_t)j * u.dp;
            vf a{}, b{}, c{}, e{};
            for (int i = 0; i < u.dp; i += W) {
                const vf x = load(q + i);
                a = madd(x, load(k + i), a);
                b = madd(x, load(k + u.dp + i), b);
                c = madd(x, load(k + 2 * u.dp + i), c);
                e = madd(x, load(k + 3 * u.dp + i), e);
            }
            s[j] = sum(a); s[j + 1] = sum(b); s[j + 2] = sum(c); s[j + 3] = sum(e);
        }
        for (; j < n_cells; j++) {
            vf a{};
            for (int i = 0; i < u.dp; i += W) a = madd(load(q + i), load(t.k + (size_t)j * u.dp + i), a);
            s[j] = sum(a);
        }
        if (!all_visible || op.softcap > 0 || op.max_bias > 0)
            for (j = 0; j < n_cells; j++) s[j] = adjusted(op, u.lanes[m], s[j], begin + j);
        for (j = n_cells; j % W; j++) s[j] = -INFINITY;
        const int padded = j;
        for (j = 0; j < n_cells; j++) high = greatest(high, s[j]);
        const float alpha = exp_negative(splat(t.highest[m] - high))[0];
        vf total{};
        for (j = 0; j < padded; j += W) {
            const vf p = exp_negative(load(s + j) - high);
            store(s + j, p);
            total += p;
        }
        t.highest[m] = high;
        t.total[m] = t.total[m] * alpha + sum(total);
        float * o = t.o + (size_t)m * u.dvp;
        for (int i = 0; i < u.dvp; i += 4 * W) {
            const int n = least(4, (u.dvp - i) / W);
            vf acc[4] = {};
            for (int b = 0; b < n; b++) acc[b] = load(o + i + b * W) * alpha;
            if (n == 4)
                for (j = 0; j < n_cells; j++)
                    for (int b = 0; b < 4; b++)
                        acc[b] = madd(splat(s[j]), load(u.values + (size_t)j * u.stride + i + b * W), acc[b]);
            else
                for (j = 0; j < n_cells; j++)
                    for (int b = 0; b < n; b++)
                        acc[b] = madd(splat(s[j]), load(u.values + (size_t)j * u.stride + i + b * W), acc[b]);
            for (int b = 0; b < n; b++) store(o + i + b * W, acc[b]);
        }
    }
}

void run(Unit & u, Scratch & t) {
    const Attention & op = *u.op;
    const bool by_lane = u.n_lanes * 2 >= W;
    u.vectors = (u.n_lanes + W - 1) / W;
    const int lanes = u.vectors * W;
    // The two layouts of q and o share memory; padding lanes and dims are zero and stay harmless.
    fill(t.q, by_lane ? (size_t)u.d * lanes : (size_t)u.n_lanes * u.dp, 0.0f);
    fill(t.o, by_lane ? (size_t)u.dv * lanes : (size_t)u.n_lanes * u.dvp, 0.0f);
    fill(t.highest, MAX_LANES, LOWEST);
    fill(t.total, MAX_LANES, 0.0f);
    int first = INT32_MAX, last_first = 0, least_seen = INT32_MAX, end = 0;
    for (int m = 0; m < u.n_lanes; m++) {
        const Lane & lane = u.lanes[m];
        t.highest[m] = lane.highest;
        t.total[m] = lane.total;
        for (int i = 0; i < u.d; i++) t.q[by_lane ? (size_t)i * lanes + m : (size_t)m * u.dp + i] = lane.q[i] * op.scale;
        first = least(first, lane.first);
        last_first = greatest(last_first, lane.first);
        least_seen = least(least_seen, lane.last + 1);
        end = greatest(end, lane.last + 1);
    }
    // V may be the first part of K's rows (multi-head latent attention): then its tile is too.
    const bool v_in_k = u.k->data == u.v->data && u.kv_head == 0;
    u.values = v_in_k ? t.k : t.v;
    u.stride = v_in_k ? u.dp : u.dvp;
    // Tiles begin at the same cells for everybody; a tile of which a lane sees nothing leaves it as it is.
    for (int begin = first - first % TILE; begin < end; begin += TILE) {
        const int n = least(TILE, end - begin);
        const bool all_visible = begin >= last_first && begin + n <= least_seen;
        gather(u.k, u.kv_head, u.d, u.dp, u.seq->cells + begin, n, t.k);
        if (!v_in_k) gather(u.v, u.kv_head, u.dv, u.dvp, u.seq->cells + begin, n, t.v);
        if (!by_lane) { tile_of_dims(u, t, begin, n, all_visible); continue; }
        switch (u.vectors) {
            case 1: tile_of_lanes<1>(u, t, begin, n, all_visible); break;
            case 2: tile_of_lanes<2>(u, t, begin, n, all_visible); break;
            case 3: tile_of_lanes<3>(u, t, begin, n, all_visible); break;
            default: tile_of_lanes<4>(u, t, begin, n, all_visible); break;
        }
    }
    for (int m = 0; m < u.n_lanes; m++) {
        const float scale = 1.0f / t.total[m];
        for (int i = 0; i < u.dv; i++)
            u.lanes[m].out[i] = t.o[by_lane ? (size_t)i * lanes + m : (size_t)m * u.dvp + i] * scale;
    }
}

// Not std::atomic's function, which the linker could share between files.
inline int next_unit(Attention & op) {
    static_assert(sizeof op.next == sizeof(int32_t), "an atomic that is its value");
    return __atomic_fetch_add((int32_t *)&op.next, 1, __ATOMIC_RELAXED);
}

// Lanes of each unit of a sequence, of at most `limit`: as few units and vectors as that takes, about equally full.
inline int even_chunk(int n_lanes, int limit) {
    const int units = (n_lanes + limit - 1) / limit, even = (n_lanes + units - 1) / units;
    return even > W ? (even + W - 1) / W * W : even;
}

// dst [dv, heads, rows] F32; src0 q [d, heads, rows] F32; src1 K [d * kv_heads, cells];
// src2 V [dv * kv_heads, cells], both of any type that ggml can turn into F32, where d (dv) is a
// multiple of the type's block. V may be a view of K's rows, with K's stride. The number of KV heads is src1's
// ne0 / d. src3, if there is one: F32 [heads], a score of each head that takes part in the softmax and has no value
// (attention sinks, GPT-OSS).
void attention_forward(ggml_tensor * dst, int, int nth, void * userdata) {
    static thread_local Scratch scratch;
    Attention & op = *(Attention *)userdata;
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2];
    const float * sinks = dst->src[3] ? (const float *)dst->src[3]->data : nullptr;
    Unit u;
    u.op = &op; u.k = k; u.v = v;
    u.d = q->ne[0]; u.dv = dst->ne[0];
    u.dp = (u.d + W - 1) / W * W; u.dvp = (u.dv + W - 1) / W * W;
    const int n_head = q->ne[1], n_kv_head = k->ne[0] / u.d, group = n_head / n_kv_head;
    scratch.layout(u.dp, u.dvp);

    // Units small enough that every thread gets some, but no smaller: a tile is gathered once per unit.
    const int64_t all_lanes = (int64_t)q->ne[2] * n_head;
    const int chunk_limit = least(MAX_LANES, 4 * W);
    const int chunk = (int)greatest<int64_t>(1, least<int64_t>((all_lanes + 2 * nth - 1) / (2 * nth), chunk_limit));

    int unit = next_unit(op), before = 0;
    for (int s = 0; s < op.batch->n_sequences; s++) {
        const Sequence & seq = op.batch->sequences[s];
        const int n_lanes = seq.n_new * group, size = even_chunk(n_lanes, chunk), chunks = (n_lanes + size - 1) / size;
        const int n_units = chunks * n_kv_head;
        for (; unit < before + n_units; unit = next_unit(op)) {
            const int c = chunks - 1 - (unit - before) / n_kv_head;  // the latest rows see most: first
            u.seq = &seq;
            u.kv_head = (unit - before) % n_kv_head;
            u.n_lanes = least(size, n_lanes - c * size);
            for (int m = 0; m < u.n_lanes; m++) {
                const int lane = c * size + m, row = seq.row + lane / group, head = u.kv_head * group + lane % group;
                const int position = seq.n_past + lane / group;
                u.lanes[m] = {
                    (const float *)((const char *)q->data + row * q->nb[2] + head * q->nb[1]),
                    (float *)((char *)dst->data + row * dst->nb[2] + head * dst->nb[1]),
                    position,
                    first_seen(op, position),
                    last_seen(op, position, seq.n_past + seq.n_new - 1),
                    slope_of(op.max_bias, head, n_head),
                    sinks ? sinks[head] : LOWEST,
                    sinks ? 1.0f : 0.0f,
                };
            }
            run(u, scratch);
        }
        before += n_units;
    }
}

}  // namespace
}  // namespace ggserve
