// One work item for each element of the result.

kernel void binary(bytes a, ulong16 va, bytes b, ulong16 vb, bytes d, ulong16 vd, int op) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    const float x = load_f32(AT(a, va, i0, i1, i2, i3));
    const float y = load_f32(AT(b, vb, i0 % NE0(vb), i1 % NE1(vb), i2 % NE2(vb), i3 % NE3(vb)));
    store_f32(AT(d, vd, i0, i1, i2, i3), op == 0 ? x + y : op == 1 ? x - y : op == 2 ? x * y : x / y);
}

// Operation numbers as in elementwise.cpp. GELU's tanh approximation and exact form (Hendrycks 2016, arXiv 1606.08415).
float function(int f, float x, float p, float q) {
    switch (f) {
        case 0: return p * x + q;                                                  // scale
        case 1: return fmin(fmax(x, p), q);                                        // clamp
        case 2: return x / (1.0f + exp(-x));                                       // silu
        case 3: return 0.5f * x * (1.0f + tanh(0.79788456080286536f * x * (1.0f + 0.044715f * x * x)));
        case 4: return 0.5f * x * (1.0f + erf(x * 0.70710678118654752f));
        case 5: return x / (1.0f + exp(-1.702f * x));                              // the quick GELU
        case 6: return fmax(x, 0.0f);
        case 7: return 1.0f / (1.0f + exp(-x));
        case 8: return tanh(x);
        case 9: return x * x;
        case 10: return sqrt(x);
        case 11: return exp(x);
        case 12: return -x;
        case 13: return fabs(x);
        case 14: return log(x);
        case 15: return sin(x);
        default: return cos(x);
    }
}

kernel void unary(bytes a, ulong16 va, bytes d, ulong16 vd, int f, float p, float q) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    store_f32(AT(d, vd, i0, i1, i2, i3), function(f, load_f32(AT(a, va, i0, i1, i2, i3)), p, q));
}

// act(gate) * up (Shazeer 2020, arXiv 2002.05202). clamped: GPT-OSS's variant, with alpha p and limit q.
kernel void gated(bytes g, ulong16 vg, bytes u, ulong16 vu, bytes d, ulong16 vd, int f, int clamped, float p, float q) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    float x = load_f32(AT(g, vg, i0, i1, i2, i3)), y = load_f32(AT(u, vu, i0, i1, i2, i3));
    if (clamped) {
        x = fmin(x, q);
        y = fmin(fmax(y, -q), q);
        x = x / (1.0f + exp(-p * x)) * (1.0f + y);
    } else {
        x = function(f, x, 0.0f, 0.0f) * y;
    }
    store_f32(AT(d, vd, i0, i1, i2, i3), x);
}

// b's row of the expert that `ids` names for each slot and token.
kernel void add_id(bytes a, ulong16 va, bytes b, ulong16 vb, bytes ids, ulong16 vi, bytes d, ulong16 vd) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    INDICES(i, vd);
    const int expert = *(global const int *) AT(ids, vi, i1, i2, 0, 0);
    const float y = load_f32(AT(b, vb, i0, expert, 0, 0));
    store_f32(AT(d, vd, i0, i1, i2, i3), load_f32(AT(a, va, i0, i1, i2, i3)) + y);
}

// Copy to another layout or type; elements correspond in ggml's order.
kernel void copy(bytes a, ulong16 va, int from, bytes d, ulong16 vd, int to) {
    const ulong i = get_global_id(0);
    if (i >= COUNT(vd)) return;
    const_bytes p;
    {
        INDICES(i, va);
        p = AT(a, va, i0, i1, i2, i3);
    }
    INDICES(i, vd);
    bytes q = AT(d, vd, i0, i1, i2, i3);
    if (from == to && from == I32) *(global int *) q = *(global const int *) p;
    else store(q, to, load(p, from));
}
