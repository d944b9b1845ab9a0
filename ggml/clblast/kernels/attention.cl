// Attention of one row and head for each group, over tiles of LOCAL cells with a running maximum (Dao 2022,
// arXiv 2205.14135). K and V are of TYPE; d (and dv) up to 16 * MOST_CHUNKS.

#define MOST_CHUNKS 16
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define DECODE JOIN(decode_, TYPE)

kernel void attend(bytes q, ulong16 vq, bytes k, ulong16 vk, bytes v, ulong16 vv, bytes m, ulong16 vm, int has_mask,
                   bytes s, ulong16 vs, int has_sinks, bytes d, ulong16 vd, float scale, float softcap,
                   float max_bias, uint n_log2, float m0, float m1) {
    local float query[16 * MOST_CHUNKS], scratch[LOCAL], weights[LOCAL], sums[16 * MOST_CHUNKS];
    const uint id = get_local_id(0);
    const ulong row = get_group_id(0), head = get_global_id(1), i3 = get_global_id(2);
    const ulong kv_head = head * NE2(vk) / NE2(vq), v_head = head * NE2(vv) / NE2(vq);
    const ulong k3 = i3 * NE3(vk) / NE3(vq), v3 = i3 * NE3(vv) / NE3(vq);
    const ulong dk = NE0(vq), dv = NE0(vv), n_kv = NE1(vk);
    global const float * asked = (global const float *) AT(q, vq, 0, row, head, i3);
    for (uint i = id; i < dk; i += LOCAL) query[i] = asked[i];
    for (uint i = id; i < dv; i += LOCAL) sums[i] = 0.0f;
    const float bias = max_bias > 0.0f ? slope(head, n_log2, m0, m1) : 1.0f;
    const_bytes mask = AT(m, vm, 0, row, head % NE2(vm), i3 % NE3(vm));
    float highest = -INFINITY, total = 0.0f;
    for (ulong begin = 0; begin < n_kv; begin += LOCAL) {
        barrier(CLK_LOCAL_MEM_FENCE);
        const ulong cell = begin + id;
        float score = -INFINITY;
        const float masked = cell < n_kv && has_mask ? bias * load_f16(mask + cell * NB0(vm)) : 0.0f;
        if (cell < n_kv && masked != -INFINITY) {
            const_bytes key = AT(k, vk, 0, cell, kv_head, k3);
            score = 0.0f;
            for (uint c = 0; c < dk / 16; c++) {
                float x[16];
                DECODE(key, c, x);
                for (uint i = 0; i < 16; i++) score += query[16 * c + i] * x[i];
            }
            score *= scale;
            if (softcap > 0.0f) score = softcap * tanh(score / softcap);
            score += masked;
        }
        const float best = fmax(highest, group_max(score, scratch));
        if (best == -INFINITY) continue;  // the whole tile is masked; the same for all work items
        const float shrink = exp(highest - best), weight = exp(score - best);
        weights[id] = weight;
        total = total * shrink + group_sum(weight, scratch);
        highest = best;
        // Each work item sums some dimensions of the values over the tile.
        const uint n = min((ulong) LOCAL, n_kv - begin);
        for (uint c = id; c < dv / 16; c += LOCAL) {
            for (uint i = 0; i < 16; i++) sums[16 * c + i] *= shrink;
            for (uint j = 0; j < n; j++) {
                if (weights[j] == 0.0f) continue;  // also skips cells that were never written
                float x[16];
                DECODE(AT(v, vv, 0, begin + j, v_head, v3), c, x);
                for (uint i = 0; i < 16; i++) sums[16 * c + i] += weights[j] * x[i];
            }
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float shrink = 1.0f;
    if (has_sinks) {
        const float sink = load_f32(s + OFFSET(vs) + 4 * head), best = fmax(highest, sink);
        shrink = exp(highest - best);
        total = total * shrink + exp(sink - best);
    }
    for (uint i = id; i < dv; i += LOCAL) {
        store_f32(AT(d, vd, i, head, row, i3), total > 0.0f ? sums[i] * shrink / total : 0.0f);
    }
}
