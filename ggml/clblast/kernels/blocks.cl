// Decode sixteen elements of a row of each type: NAME(row, chunk, out). Layouts: ggml-common.h.

void decode_f32(const_bytes row, uint c, float * v) {
    for (uint i = 0; i < 16; i++) v[i] = load_f32(row + 64 * c + 4 * i);
}
void decode_f16(const_bytes row, uint c, float * v) {
    for (uint i = 0; i < 16; i++) v[i] = load_f16(row + 32 * c + 2 * i);
}
void decode_bf16(const_bytes row, uint c, float * v) {
    for (uint i = 0; i < 16; i++) v[i] = load_bf16(row + 32 * c + 2 * i);
}
// Blocks of 32: first the low halves of the bytes, then the high ones.
void decode_q4_0(const_bytes row, uint c, float * v) {
    const_bytes b = row + 18 * (c / 2);
    const float d = load_f16(b);
    for (uint i = 0; i < 16; i++) v[i] = d * ((int) (b[2 + i] >> 4 * (c & 1) & 15) - 8);
}
void decode_q4_1(const_bytes row, uint c, float * v) {
    const_bytes b = row + 20 * (c / 2);
    const float d = load_f16(b), m = load_f16(b + 2);
    for (uint i = 0; i < 16; i++) v[i] = d * (b[4 + i] >> 4 * (c & 1) & 15) + m;
}
void decode_q5_0(const_bytes row, uint c, float * v) {
    const_bytes b = row + 22 * (c / 2);
    const float d = load_f16(b);
    for (uint i = 0; i < 16; i++) {
        const uint bit = 16 * (c & 1) + i, high = b[2 + bit / 8] >> bit % 8 & 1;
        v[i] = d * ((int) (b[6 + i] >> 4 * (c & 1) & 15 | high << 4) - 16);
    }
}
void decode_q5_1(const_bytes row, uint c, float * v) {
    const_bytes b = row + 24 * (c / 2);
    const float d = load_f16(b), m = load_f16(b + 2);
    for (uint i = 0; i < 16; i++) {
        const uint bit = 16 * (c & 1) + i, high = b[4 + bit / 8] >> bit % 8 & 1;
        v[i] = d * (b[8 + i] >> 4 * (c & 1) & 15 | high << 4) + m;
    }
}
void decode_q8_0(const_bytes row, uint c, float * v) {
    const_bytes b = row + 34 * (c / 2);
    const float d = load_f16(b);
    for (uint i = 0; i < 16; i++) v[i] = d * (char) b[2 + 16 * (c & 1) + i];
}
// Blocks of 256 in sixteen groups.
void decode_q2_K(const_bytes row, uint chunk, float * v) {
    const_bytes b = row + 84 * (chunk / 16);
    const uint c = chunk % 16, scale = b[c];
    const float d = load_f16(b + 80) * (scale & 15), m = load_f16(b + 82) * (scale >> 4);
    for (uint i = 0; i < 16; i++) v[i] = d * (b[16 + 32 * (c / 8) + 16 * (c & 1) + i] >> 2 * (c % 8 / 2) & 3) - m;
}
void decode_q3_K(const_bytes row, uint chunk, float * v) {
    const_bytes b = row + 110 * (chunk / 16), s = b + 96;
    const uint c = chunk % 16, bit = 4 * (c / 8) + c % 8 / 2;
    const uint low = c < 8 ? s[c] & 15 : s[c - 8] >> 4, high = s[8 + c % 4] >> 2 * (c / 4) & 3;
    const float d = load_f16(b + 108) * ((int) (low | high << 4) - 32);
    for (uint i = 0; i < 16; i++) {
        const int q = b[32 + 32 * (c / 8) + 16 * (c & 1) + i] >> 2 * (c % 8 / 2) & 3;
        v[i] = d * (q - (b[16 * (c & 1) + i] >> bit & 1 ? 0 : 4));
    }
}
// Scale and minimum of one of eight groups, six bits each.
void scale_and_minimum(const_bytes s, uint g, uint * scale, uint * minimum) {
    if (g < 4) {
        *scale = s[g] & 63;
        *minimum = s[g + 4] & 63;
    } else {
        *scale = s[g + 4] & 15 | s[g - 4] >> 6 << 4;
        *minimum = s[g + 4] >> 4 | s[g] >> 6 << 4;
    }
}
void decode_q4_K(const_bytes row, uint chunk, float * v) {
    const_bytes b = row + 144 * (chunk / 16);
    const uint c = chunk % 16, g = c / 2;
    uint scale, minimum;
    scale_and_minimum(b + 4, g, &scale, &minimum);
    const float d = load_f16(b) * scale, m = load_f16(b + 2) * minimum;
    for (uint i = 0; i < 16; i++) v[i] = d * (b[16 + 32 * (g / 2) + 16 * (c & 1) + i] >> 4 * (g & 1) & 15) - m;
}
void decode_q5_K(const_bytes row, uint chunk, float * v) {
    const_bytes b = row + 176 * (chunk / 16);
    const uint c = chunk % 16, g = c / 2;
    uint scale, minimum;
    scale_and_minimum(b + 4, g, &scale, &minimum);
    const float d = load_f16(b) * scale, m = load_f16(b + 2) * minimum;
    for (uint i = 0; i < 16; i++) {
        const uint j = 16 * (c & 1) + i, high = b[16 + j] >> g & 1;
        v[i] = d * (b[48 + 32 * (g / 2) + j] >> 4 * (g & 1) & 15 | high << 4) - m;
    }
}
void decode_q6_K(const_bytes row, uint chunk, float * v) {
    const_bytes b = row + 210 * (chunk / 16);
    const uint c = chunk % 16, n = c / 8, quarter = c % 8 / 2;
    const float d = load_f16(b + 208) * (char) b[192 + c];
    for (uint i = 0; i < 16; i++) {
        const uint l = 16 * (c & 1) + i;
        const uint low = b[64 * n + 32 * (quarter & 1) + l] >> 4 * (quarter / 2) & 15;
        const uint high = b[128 + 32 * n + l] >> 2 * quarter & 3;
        v[i] = d * ((int) (low | high << 4) - 32);
    }
}
