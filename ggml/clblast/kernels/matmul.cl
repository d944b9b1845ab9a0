// Weights of any type times float32 columns. TYPE is defined for each program.

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define DECODE JOIN(decode_, TYPE)

// Rows `first` … of one matrix as float32 [ne0, n_rows], for CLBlast. One work item: 16 elements.
kernel void dequantize(bytes w, ulong16 vw, ulong first, ulong n_rows, ulong i2, ulong i3, global float * out) {
    const ulong n = NE0(vw) / 16, i = get_global_id(0);
    if (i >= n * n_rows) return;
    float v[16];
    DECODE(AT(w, vw, 0, first + i / n, i2, i3), i % n, v);
    for (uint j = 0; j < 16; j++) out[(i / n) * NE0(vw) + 16 * (i % n) + j] = v[j];
}

#define MOST_COLUMNS 8

// A group for each row of weights and each matrix: its products with columns `first` … `first + n - 1` of x.
kernel void times_few(bytes w, ulong16 vw, bytes x, ulong16 vx, bytes d, ulong16 vd, uint first, uint n) {
    local float scratch[LOCAL];
    const ulong row = get_group_id(0), i2 = get_global_id(1) % NE2(vd), i3 = get_global_id(1) / NE2(vd);
    const_bytes weights = AT(w, vw, 0, row, i2 * NE2(vw) / NE2(vd), i3 * NE3(vw) / NE3(vd));
    float sum[MOST_COLUMNS];
    for (uint j = 0; j < MOST_COLUMNS; j++) sum[j] = 0.0f;
    for (uint c = get_local_id(0); c < NE0(vw) / 16; c += LOCAL) {
        float v[16];
        DECODE(weights, c, v);
        for (uint j = 0; j < n; j++) {
            global const float * column = (global const float *) AT(x, vx, 0, first + j, i2, i3) + 16 * c;
            float part = 0.0f;
            for (uint i = 0; i < 16; i++) part += v[i] * column[i];
            sum[j] += part;
        }
    }
    for (uint j = 0; j < n; j++) {
        const float all = group_sum(sum[j], scratch);
        if (get_local_id(0) == 0) store_f32(AT(d, vd, row, first + j, i2, i3), all);
    }
}

// A group for each row of the expert that `ids` names for a slot and token.
kernel void times_expert(bytes w, ulong16 vw, bytes x, ulong16 vx, bytes ids, ulong16 vi, bytes d, ulong16 vd) {
    local float scratch[LOCAL];
    const ulong row = get_group_id(0), slot = get_global_id(1) % NE1(vd), token = get_global_id(1) / NE1(vd);
    const int expert = *(global const int *) AT(ids, vi, slot, token, 0, 0);
    const_bytes weights = AT(w, vw, 0, row, expert, 0);
    global const float * column = (global const float *) AT(x, vx, 0, slot % NE1(vx), token, 0);
    float sum = 0.0f;
    for (uint c = get_local_id(0); c < NE0(vw) / 16; c += LOCAL) {
        float v[16];
        DECODE(weights, c, v);
        for (uint i = 0; i < 16; i++) sum += v[i] * column[16 * c + i];
    }
    sum = group_sum(sum, scratch);
    if (get_local_id(0) == 0) store_f32(AT(d, vd, row, slot, token, 0), sum);
}

// ids I32 [m, ne1, ne2] choose rows of w [n, rows, ne1, ne2]. One work item: 16 elements.
kernel void get_rows(bytes w, ulong16 vw, bytes ids, ulong16 vi, bytes d, ulong16 vd) {
    const ulong n = NE0(vw) / 16, i = get_global_id(0);
    if (i >= n * NE1(vd) * NE2(vd) * NE3(vd)) return;
    const ulong c = i % n, i1 = i / n % NE1(vd), i2 = i / (n * NE1(vd)) % NE2(vd), i3 = i / (n * NE1(vd) * NE2(vd));
    const int row = *(global const int *) AT(ids, vi, i1, i2, i3, 0);
    float v[16];
    DECODE(AT(w, vw, 0, row, i2, i3), c, v);
    bytes out = AT(d, vd, 16 * c, i1, i2, i3);
    for (uint j = 0; j < 16; j++) store_f32(out + 4 * j, v[j]);
}
