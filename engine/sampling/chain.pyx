# cython: initializedcheck=False
"""The steps between the edited row of logits and the draw; see `engine.sampling.parameters`."""

from libc.math cimport INFINITY, exp, expm1, fabs, log, pow
from libc.stddef cimport size_t
from libc.stdint cimport int32_t
from libcpp.vector cimport vector

from engine.sampling.kernels cimport (
    ALL,
    Cut,
    Scratch,
    gather,
    grow,
    max_of,
    moments,
    prefix_cut,
    sort_descending,
    sum_exp,
    top_cut,
    top_values,
    weigh,
    weight_cut,
)


cdef double LN2 = 0.6931471805599453
cdef size_t MIROSTAT_M = 100  # tokens that mirostat 1 fits its slope to, as in the paper and llama.cpp
cdef double LEAST_TEMPERATURE = 1e-5  # GREEDY_BELOW of engine/sampling/parameters.py


# ---- shrinking the candidates, never below one ----


cdef Cut at_least(Cut cut, size_t m, const float* keys, Candidates* c, Scratch* s) noexcept nogil:
    # The cut, lowered if it would keep fewer than m.
    cdef Cut other
    if m <= 1:
        return cut
    if m >= c.n:
        other.t, other.ties = -INFINITY, ALL
        return other
    other = top_cut(keys, c.n, c.block_max if keys == c.logits else NULL, m, s)
    if other.t < cut.t or (other.t == cut.t and other.ties > cut.ties):
        return other
    return cut


cdef void keep_by(Candidates* c, const float* keys, Cut cut, Scratch* s) noexcept nogil:
    cdef float* out = grow(s.logits, c.n)
    cdef int32_t* ids = grow(s.ids, c.n)
    c.n = gather(keys, c.logits, c.ids, c.n, c.block_max if keys == c.logits else NULL, cut, out, ids)
    c.logits = out
    c.ids = ids
    c.block_max = NULL


cdef inline void keep(Candidates* c, Cut cut, Scratch* s) noexcept nogil:
    keep_by(c, c.logits, cut, s)


cdef void keep_from(Candidates* c, double threshold, size_t min_keep, Scratch* s) noexcept nogil:
    cdef Cut cut
    cut.t, cut.ties = <float>threshold, ALL
    if not cut.t <= c.top:  # the most likely one always stays
        cut.t = c.top
    keep(c, at_least(cut, min_keep, c.logits, c, s), s)


cdef void keep_finite(Candidates* c, Scratch* s) noexcept nogil:
    # After it the logits are those of `s`, and can be changed.
    cdef Cut cut
    cut.t, cut.ties = -INFINITY, 0
    if c.ids == NULL:
        keep(c, cut, s)


# ---- steps ----


cdef void top_k(Candidates* c, size_t k, Scratch* s) noexcept nogil:
    if k < c.n:
        keep(c, top_cut(c.logits, c.n, c.block_max, k, s), s)


cdef void top_n_sigma(Candidates* c, double n, Scratch* s) noexcept nogil:
    cdef double mean, deviation
    moments(c.logits, c.n, &mean, &deviation)
    keep_from(c, c.top - n * deviation, 0, s)


cdef void tail_free(Candidates* c, double z, Scratch* s) noexcept nogil:
    keep_finite(c, s)
    cdef size_t i, n = c.n, m = c.n
    if n <= 2:
        return
    s.values.assign(c.logits, c.logits + n)
    sort_descending(s.values, s.pairs)
    s.probs.resize(n)
    cdef double total = 0, bend = 0, cum = 0
    for i in range(n):
        s.probs[i] = exp(<double>s.values[i] - c.top)
        total += s.probs[i]
    for i in range(n - 2):
        bend += fabs(s.probs[i] - 2 * s.probs[i + 1] + s.probs[i + 2])
    cdef bint flat = bend <= 1e-6 * total  # as llama.cpp had it: a flat distribution counts its tokens evenly
    for i in range(n - 2):
        cum += 1.0 / (n - 2) if flat else fabs(s.probs[i] - 2 * s.probs[i + 1] + s.probs[i + 2]) / bend
        if cum > z and i > 0:
            m = i
            break
    keep(c, prefix_cut(s.values, m), s)


cdef double entropy_of(Candidates* c, double total, const float* weights) noexcept nogil:
    # In nats. total: the sum of the weights, which `weigh` left.
    cdef size_t i
    cdef double log_total = log(total), entropy = 0
    for i in range(c.n):
        entropy += weights[i] * (log_total - (<double>c.logits[i] - c.top))
    return entropy / total


cdef void typical(Candidates* c, double p, size_t min_keep, Scratch* s) noexcept nogil:
    keep_finite(c, s)
    cdef size_t i, n = c.n
    cdef double total = weigh(c.logits, n, c.top, 1, s)
    cdef double log_total = log(total), entropy = entropy_of(c, total, s.weights.data())
    cdef float* keys = grow(s.keys, n)
    for i in range(n):
        keys[i] = <float>-fabs(log_total - (<double>c.logits[i] - c.top) - entropy)
    # Beyond 40 nats there is no weight to speak of.
    cdef Cut cut = weight_cut(keys, s.weights.data(), n, p * total, -40, 0, s)
    keep_by(c, keys, at_least(cut, min_keep, keys, c, s), s)
    c.top = max_of(c.logits, c.n)


cdef void top_p(Candidates* c, double p, size_t min_keep, Scratch* s) noexcept nogil:
    cdef double total = sum_exp(c.logits, c.n, c.top)
    # All tokens less likely than (1 - p) / n together weigh less than 1 - p: none of them is needed.
    cdef double least = log(total * (1 - p) / c.n) - 1e-3
    keep_from(c, c.top + least, min_keep, s)
    weigh(c.logits, c.n, c.top, 1, s)
    cdef Cut cut = weight_cut(c.logits, s.weights.data(), c.n, p * total, <float>(c.top + least), c.top, s)
    keep(c, at_least(cut, min_keep, c.logits, c, s), s)


cdef void top_a(Candidates* c, double a, Scratch* s) noexcept nogil:
    # p >= a pmax^2 with p = e^(l - top) / total and pmax = 1 / total
    keep_from(c, c.top + log(a / sum_exp(c.logits, c.n, c.top)), 0, s)


cdef void xtc(Candidates* c, const Settings* p, Scratch* s) noexcept nogil:
    keep_finite(c, s)
    cdef float* logits = s.logits.data()
    cdef int32_t* ids = s.ids.data()
    cdef float bound = <float>(c.top + log(p.xtc_threshold * sum_exp(logits, c.n, c.top)))
    cdef size_t i, least = 0, n_above = 0, n = 0
    for i in range(c.n):
        if logits[i] >= bound:
            if n_above == 0 or logits[i] <= logits[least]:  # among equals the last counts as the least likely
                least = i
            n_above += 1
    if n_above < 2 or c.n - (n_above - 1) < p.min_keep:
        return
    c.top = logits[least]
    for i in range(c.n):
        if logits[i] < bound or i == least:
            logits[n], ids[n] = logits[i], ids[i]
            n += 1
    c.n = n


cdef double dynamic_temperature(Candidates* c, const Settings* p, Scratch* s) noexcept nogil:
    keep_finite(c, s)
    if c.n == 1:
        return 1
    cdef double low = p.temperature - p.dynatemp_range, high = p.temperature + p.dynatemp_range
    if low < 0:
        low = 0
    cdef double total = weigh(c.logits, c.n, c.top, 1, s)
    cdef double evenness = entropy_of(c, total, s.weights.data()) / log(<double>c.n)
    if evenness < 0:  # by rounding
        evenness = 0
    return low + (high - low) * pow(evenness, p.dynatemp_exponent)


cdef void temper(Candidates* c, const Settings* p, bint last, Scratch* s) noexcept nogil:
    cdef double t = p.temperature
    if p.dynatemp_range > 0:
        t = dynamic_temperature(c, p, s)
    if t < LEAST_TEMPERATURE:
        top_k(c, 1, s)
        return
    cdef float scale = <float>(1 / t)
    if last:
        c.scale = scale
        return
    keep_finite(c, s)
    cdef size_t i
    for i in range(c.n):
        s.logits[i] *= scale
    c.top *= scale


cdef void run(Candidates* c, const vector[Step]& steps, const Settings* p, Context* context) noexcept nogil:
    """Take the steps in this order."""
    cdef size_t i
    cdef Step step
    cdef Scratch* s = context.s
    for i in range(steps.size()):
        step = steps[i]
        if step == TOP_K:
            top_k(c, p.top_k, s)
        elif step == TOP_P:
            top_p(c, p.top_p, p.min_keep, s)
        elif step == MIN_P:
            keep_from(c, c.top + log(p.min_p), p.min_keep, s)
        elif step == TEMPERATURE:
            temper(c, p, i + 1 == steps.size(), s)
        elif step == TYP_P:
            typical(c, p.typical_p, p.min_keep, s)
        elif step == TFS_Z:
            tail_free(c, p.tfs_z, s)
        elif step == TOP_A:
            top_a(c, p.top_a, s)
        elif step == TOP_N_SIGMA:
            top_n_sigma(c, p.top_n_sigma, s)
        elif step == XTC:
            if context.chance < p.xtc_probability:
                xtc(c, p, s)
        else:  # of repetitions, after another step
            keep_finite(c, s)
            if step == PENALTIES:
                context.window.apply(s.logits.data(), c.ids, c.n)
            else:
                context.dry.apply(s.logits.data(), c.ids, c.n)
            c.top = max_of(c.logits, c.n)


# ---- what takes the place of steps, or of the plain draw ----


cdef void mirostat_1(Candidates* c, const Settings* p, double mu, Scratch* s) noexcept nogil:
    # Fits Zipf's exponent to the most likely tokens (arXiv 2007.14966, algorithm 1), from it the k whose
    # expected surprise is mu.
    cdef double t, tb = 0, tt = 0, vocabulary = <double>c.n
    cdef size_t i
    top_values(c.logits, c.n, c.block_max, MIROSTAT_M, s)
    for i in range(s.values.size() - 1):
        t = log((i + 2.0) / (i + 1.0))
        tb += t * (<double>s.values[i] - s.values[i + 1]) / p.temperature
        tt += t * t
    if tt == 0:
        return  # one token
    cdef double slope = tb / tt
    cdef double eps = slope - 1
    cdef double base = -eps / expm1(-eps * log(vocabulary)) if eps != 0 else 1 / log(vocabulary)
    cdef double k = pow(base * pow(2, mu), 1 / slope)
    if k < vocabulary:
        top_k(c, <size_t>k if k > 1 else 1, s)


cdef void mirostat_2(Candidates* c, const Settings* p, double mu, Scratch* s) noexcept nogil:
    # Drops the tokens whose surprise exceeds mu bits (algorithm 2).
    cdef double total = weigh(c.logits, c.n, c.top, <float>(1 / p.temperature), s)
    keep_from(c, c.top + p.temperature * (log(total) - mu * LN2), 0, s)


cdef double adapt(Candidates* c, const Settings* p, double average, Scratch* s) noexcept nogil:
    """Leaves weights in `s` that favour tokens whose probability lies near the target; returns their sum.

    The constants are llama.cpp's: width 0.3, peak 5, sharpness 10. Probabilities before that are in `s.probs`.
    """
    keep_finite(c, s)
    cdef double target = 2 * p.adaptive_target - average
    target = 0 if target < 0 else 1 if target > 1 else target
    cdef double total = weigh(c.logits, c.n, c.top, c.scale, s), distance
    cdef float* keys = grow(s.keys, c.n)
    cdef size_t i
    s.probs.resize(c.n)
    for i in range(c.n):
        s.probs[i] = s.weights[i] / total
        distance = fabs(s.probs[i] - target) / 0.3
        keys[i] = <float>(5 - 10 * distance * distance / (1 + distance))
    return weigh(keys, c.n, max_of(keys, c.n), 1, s)
