// Rows of any length and stride, of types without blocks: one work item for each element.

kernel void times_any(bytes w, ulong16 vw, int type, bytes x, ulong16 vx, bytes d, ulong16 vd) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    const_bytes a = AT(w, vw, 0, i0, i2 * NE2(vw) / NE2(vd), i3 * NE3(vw) / NE3(vd)), b = AT(x, vx, 0, i1, i2, i3);
    float sum = 0.0f;
    for (ulong k = 0; k < NE0(vw); k++) sum += load(a + k * NB0(vw), type) * load_f32(b + k * NB0(vx));
    store_f32(AT(d, vd, i0, i1, i2, i3), sum);
}

kernel void times_expert_any(bytes w, ulong16 vw, int type, bytes x, ulong16 vx, bytes ids, ulong16 vi, bytes d,
                             ulong16 vd) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    const int expert = *(global const int *) AT(ids, vi, i1, i2, 0, 0);
    const_bytes a = AT(w, vw, 0, i0, expert, 0), b = AT(x, vx, 0, i1 % NE1(vx), i2, 0);
    float sum = 0.0f;
    for (ulong k = 0; k < NE0(vw); k++) sum += load(a + k * NB0(vw), type) * load_f32(b + k * NB0(vx));
    store_f32(AT(d, vd, i0, i1, i2, i3), sum);
}

kernel void dequantize_any(bytes w, ulong16 vw, int type, ulong first, ulong n_rows, ulong i2, ulong i3,
                           global float * out) {
    const ulong i = get_global_id(0);
    if (i >= NE0(vw) * n_rows) return;
    out[i] = load(AT(w, vw, i % NE0(vw), first + i / NE0(vw), i2, i3), type);
}

kernel void get_rows_any(bytes w, ulong16 vw, int type, bytes ids, ulong16 vi, bytes d, ulong16 vd) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    const int row = *(global const int *) AT(ids, vi, i1, i2, i3, 0);
    const_bytes p = AT(w, vw, i0, row, i2, i3);
    bytes q = AT(d, vd, i0, i1, i2, i3);
    if (type == I32) *(global int *) q = *(global const int *) p;
    else store_f32(q, load(p, type));
}

// Write rows x F32 [n, m, ..] to the rows that ids (I32 or I64) give.
kernel void set_rows(bytes x, ulong16 vx, bytes ids, ulong16 vi, int wide, bytes d, ulong16 vd, int type) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vx)) return;
    INDICES(i, vx);
    const_bytes p = AT(ids, vi, i1, i2 % NE1(vi), i3 % NE2(vi), 0);
    const long row = wide ? *(global const long *) p : *(global const int *) p;
    store(AT(d, vd, i0, row, i2, i3), type, load_f32(AT(x, vx, i0, i1, i2, i3)));
}

// The same into blocks of 32, one work item per block, rounded as in ggml's reference.
// kind: 0 q8_0, 1 q4_0, 2 q4_1, 3 q5_0, 4 q5_1; size: bytes of a block.
kernel void set_blocks(bytes x, ulong16 vx, bytes ids, ulong16 vi, int wide, bytes d, ulong16 vd, int kind, uint size) {
    const ulong n = NE0(vx) / 32, i = get_global_id(0);
    if (i >= n * NE1(vx) * NE2(vx) * NE3(vx)) return;
    const ulong c = i % n, i1 = i / n % NE1(vx), i2 = i / (n * NE1(vx)) % NE2(vx), i3 = i / (n * NE1(vx) * NE2(vx));
    const_bytes p = AT(ids, vi, i1, i2 % NE1(vi), i3 % NE2(vi), 0);
    const long row = wide ? *(global const long *) p : *(global const int *) p;
    global const float * v = (global const float *) AT(x, vx, 0, i1, i2, i3) + 32 * c;
    bytes b = AT(d, vd, 0, row, i2, i3) + size * c;
    float low = v[0], high = v[0], extreme = v[0];
    for (uint j = 1; j < 32; j++) {
        low = fmin(low, v[j]);
        high = fmax(high, v[j]);
        if (fabs(v[j]) > fabs(extreme)) extreme = v[j];
    }
    if (kind == 0) {
        const float scale = fabs(extreme) / 127.0f, inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
        store_f16(b, scale);
        for (uint j = 0; j < 32; j++) b[2 + j] = (uchar) (char) round(v[j] * inverse);
        return;
    }
    const int five = kind >= 3, with_minimum = kind == 2 || kind == 4;
    const float levels = five ? 31.0f : 15.0f, middle = five ? 16.0f : 8.0f;
    const float scale = with_minimum ? (high - low) / levels : extreme / -middle;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    store_f16(b, scale);
    if (with_minimum) store_f16(b + 2, low);
    bytes bits = b + (with_minimum ? 4 : 2), halves = bits + (five ? 4 : 0);
    uint fifth = 0;
    for (uint j = 0; j < 16; j++) {
        uint q[2];
        for (uint k = 0; k < 2; k++) {
            const float y = v[j + 16 * k] * inverse, z = (v[j + 16 * k] - low) * inverse;
            // ggml adds 0.5 and truncates; only without a minimum can that exceed the highest level.
            q[k] = with_minimum ? (uint) (z + 0.5f) : min((int) levels, (int) (char) (y + middle + 0.5f));
            fifth |= (q[k] >> 4 & 1) << (j + 16 * k);
        }
        halves[j] = (q[0] & 15) | (q[1] & 15) << 4;
    }
    if (five) {
        for (uint k = 0; k < 4; k++) bits[k] = fifth >> 8 * k;
    }
}
