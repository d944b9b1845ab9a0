// One group for each row.

kernel void norm(bytes a, ulong16 va, bytes d, ulong16 vd, float eps, int rms) {
    local float scratch[LOCAL];
    const ulong row = get_group_id(0), i1 = row % NE1(va), i2 = row / NE1(va) % NE2(va), i3 = row / (NE1(va) * NE2(va));
    const_bytes x = AT(a, va, 0, i1, i2, i3);
    bytes y = AT(d, vd, 0, i1, i2, i3);
    const ulong n = NE0(va);
    float mean = 0.0f;
    if (!rms) {
        float sum = 0.0f;
        for (ulong i = get_local_id(0); i < n; i += LOCAL) sum += load_f32(x + 4 * i);
        mean = group_sum(sum, scratch) / n;
    }
    float squares = 0.0f;
    for (ulong i = get_local_id(0); i < n; i += LOCAL) {
        const float t = load_f32(x + 4 * i) - mean;
        squares += t * t;
    }
    const float scale = 1.0f / sqrt(group_sum(squares, scratch) / n + eps);
    for (ulong i = get_local_id(0); i < n; i += LOCAL) store_f32(y + 4 * i, (load_f32(x + 4 * i) - mean) * scale);
}

kernel void sum_rows(bytes a, ulong16 va, bytes d, ulong16 vd) {
    local float scratch[LOCAL];
    const ulong row = get_group_id(0), i1 = row % NE1(va), i2 = row / NE1(va) % NE2(va), i3 = row / (NE1(va) * NE2(va));
    const_bytes x = AT(a, va, 0, i1, i2, i3);
    float sum = 0.0f;
    for (ulong i = get_local_id(0); i < NE0(va); i += LOCAL) sum += load_f32(x + 4 * i);
    sum = group_sum(sum, scratch);
    if (get_local_id(0) == 0) store_f32(AT(d, vd, 0, i1, i2, i3), sum);
}

// mask_type -1: no mask. sinks: an additional score per head, without a value (GPT-OSS).
kernel void softmax(bytes a, ulong16 va, bytes m, ulong16 vm, int mask_type, bytes s, ulong16 vs, int has_sinks,
                    bytes d, ulong16 vd, float scale, float max_bias, uint n_log2, float m0, float m1) {
    local float scratch[LOCAL];
    const ulong row = get_group_id(0), i1 = row % NE1(va), i2 = row / NE1(va) % NE2(va), i3 = row / (NE1(va) * NE2(va));
    const_bytes x = AT(a, va, 0, i1, i2, i3);
    bytes y = AT(d, vd, 0, i1, i2, i3);
    const_bytes mask = AT(m, vm, 0, i1, i2 % NE2(vm), i3 % NE3(vm));
    const float k = max_bias > 0.0f ? slope(i2, n_log2, m0, m1) : 1.0f;
    const float sink = has_sinks ? load_f32(s + OFFSET(vs) + 4 * i2) : -INFINITY;
    const ulong n = NE0(va);
    float highest = sink;
    for (ulong i = get_local_id(0); i < n; i += LOCAL) {
        float t = load_f32(x + 4 * i) * scale;
        if (mask_type >= 0) t += k * load(mask + i * NB0(vm), mask_type);
        store_f32(y + 4 * i, t);
        highest = fmax(highest, t);
    }
    highest = group_max(highest, scratch);
    float sum = 0.0f;
    for (ulong i = get_local_id(0); i < n; i += LOCAL) {
        const float t = exp(load_f32(y + 4 * i) - highest);
        store_f32(y + 4 * i, t);
        sum += t;
    }
    sum = group_sum(sum, scratch);
    if (has_sinks) sum += exp(sink - highest);
    for (ulong i = get_local_id(0); i < n; i += LOCAL) store_f32(y + 4 * i, load_f32(y + 4 * i) / sum);
}

// The rank of an element is the number of elements before it; rows are short (numbers of experts).
kernel void argsort(bytes a, ulong16 va, bytes d, ulong16 vd, int descending) {
    const ulong row = get_group_id(0), i1 = row % NE1(va), i2 = row / NE1(va) % NE2(va), i3 = row / (NE1(va) * NE2(va));
    const_bytes x = AT(a, va, 0, i1, i2, i3);
    bytes y = AT(d, vd, 0, i1, i2, i3);
    for (ulong i = get_local_id(0); i < NE0(va); i += LOCAL) {
        const float mine = load_f32(x + 4 * i);
        uint place = 0;
        for (ulong j = 0; j < NE0(va); j++) {
            const float other = load_f32(x + 4 * j);
            place += (descending ? other > mine : other < mine) || (other == mine && j < i);
        }
        *(global int *) (y + 4 * place) = (int) i;
    }
}

// Rotary embedding (Su 2021, arXiv 2104.09864) with YaRN (Peng 2023, arXiv 2309.00071). One work item for each pair.
// Pairs are adjacent elements (GPT-J style) or, with `halves`, n_dims / 2 apart (NeoX style); others are copied.
kernel void rope(bytes a, ulong16 va, bytes p, ulong16 vp, bytes f, ulong16 vf, int has_factors, bytes d, ulong16 vd,
                 uint n_dims, int halves, float theta_scale, float freq_scale, float ext_factor, float mscale,
                 float ramp_low, float ramp_high) {
    const ulong i = get_global_id(0), n_pairs = NE0(va) / 2;
    if (i >= n_pairs * NE1(va) * NE2(va) * NE3(va)) return;
    const ulong pair = i % n_pairs, i1 = i / n_pairs % NE1(va), i2 = i / (n_pairs * NE1(va)) % NE2(va),
                i3 = i / (n_pairs * NE1(va) * NE2(va));
    const_bytes x = AT(a, va, 0, i1, i2, i3);
    bytes y = AT(d, vd, 0, i1, i2, i3);
    if (2 * pair >= n_dims) {
        store_f32(y + 8 * pair, load_f32(x + 8 * pair));
        store_f32(y + 8 * pair + 4, load_f32(x + 8 * pair + 4));
        return;
    }
    const int position = *(global const int *) (p + OFFSET(vp) + 4 * i2);
    const float factor = has_factors ? load_f32(f + OFFSET(vf) + 4 * pair) : 1.0f;
    const float extrapolated = position * pow(theta_scale, (float) pair) / factor;
    float theta = freq_scale * extrapolated;
    if (ext_factor != 0.0f) {
        const float share = 1.0f - fmin(1.0f, fmax(0.0f, (pair - ramp_low) / fmax(0.001f, ramp_high - ramp_low)));
        theta = theta * (1.0f - share * ext_factor) + extrapolated * share * ext_factor;
    }
    const float c = cos(theta) * mscale, s = sin(theta) * mscale;
    const ulong first = halves ? 4 * pair : 8 * pair, second = halves ? 4 * (pair + n_dims / 2) : 8 * pair + 4;
    const float u = load_f32(x + first), v = load_f32(x + second);
    store_f32(y + first, u * c - v * s);
    store_f32(y + second, u * s + v * c);
}
