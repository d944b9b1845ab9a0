# cython: initializedcheck=False
"""Chooses the next token from a row of logits. The steps and their order: `engine.sampling`."""

from libc.math cimport INFINITY, exp, expm1, fabs, isfinite, log, pow
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from engine.sampling import parameters as sampling
from engine.errors import ConfigError, GgmlError
from engine.types import Token


cdef double LN2 = 0.6931471805599453
cdef size_t MIROSTAT_M = 100  # tokens that mirostat 1 fits its slope to, as in the paper and llama.cpp

cdef enum Status:
    OK, BROKEN, EMPTY, ALL_BANNED


cdef struct Settings:  # InferenceParameters as C values
    float repeat, frequency, presence
    int mirostat
    double tau, eta, tfs_z, typical_p, top_p, min_p, top_a, temperature
    size_t top_k


cdef struct Candidates:
    # What is left to draw from, in id order. At first the whole row: `ids` null (the index is the id), with
    # block maxima, and with -inf for banned tokens; after the first `keep` a compact list, all finite.
    const float* logits
    const int32_t* ids
    const float* block_max
    size_t n
    float top


# ---- truncation steps: each shrinks the candidates, never below one ----


cdef void keep_by(Candidates* c, const float* keys, Cut cut, Scratch* s) noexcept nogil:
    cdef float* out = grow(s.logits, c.n)
    cdef int32_t* ids = grow(s.ids, c.n)
    c.n = gather(keys, c.logits, c.ids, c.n, c.block_max if keys == c.logits else NULL, cut, out, ids)
    c.logits = out
    c.ids = ids
    c.block_max = NULL


cdef inline void keep(Candidates* c, Cut cut, Scratch* s) noexcept nogil:
    keep_by(c, c.logits, cut, s)


cdef void keep_from(Candidates* c, double threshold, Scratch* s) noexcept nogil:
    cdef Cut cut
    cut.t, cut.ties = <float>threshold, ALL
    if not cut.t <= c.top:  # the most likely one always stays
        cut.t = c.top
    keep(c, cut, s)


cdef void keep_finite(Candidates* c, Scratch* s) noexcept nogil:
    cdef Cut cut
    cut.t, cut.ties = -INFINITY, 0
    if c.ids == NULL:
        keep(c, cut, s)


cdef void top_k(Candidates* c, size_t k, Scratch* s) noexcept nogil:
    if k < c.n:
        keep(c, top_cut(c.logits, c.n, c.block_max, k, s), s)


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


cdef void typical(Candidates* c, double p, Scratch* s) noexcept nogil:
    keep_finite(c, s)
    cdef size_t i, n = c.n
    cdef double total = weigh(c.logits, n, c.top, 1, s)
    cdef double log_total = log(total), entropy = 0
    for i in range(n):
        entropy += s.weights[i] * (log_total - (<double>c.logits[i] - c.top))
    entropy /= total
    cdef float* keys = grow(s.keys, n)
    for i in range(n):
        keys[i] = <float>-fabs(log_total - (<double>c.logits[i] - c.top) - entropy)
    # Beyond 40 nats there is no weight to speak of.
    keep_by(c, keys, weight_cut(keys, s.weights.data(), n, p * total, -40, 0, s), s)
    c.top = max_of(c.logits, c.n)


cdef void top_p(Candidates* c, double p, Scratch* s) noexcept nogil:
    cdef double total = sum_exp(c.logits, c.n, c.top)
    # All tokens less likely than (1 - p) / n together weigh less than 1 - p: none of them is needed.
    cdef double least = log(total * (1 - p) / c.n) - 1e-3
    keep_from(c, c.top + least, s)
    weigh(c.logits, c.n, c.top, 1, s)
    keep(c, weight_cut(c.logits, s.weights.data(), c.n, p * total, <float>(c.top + least), c.top, s), s)


cdef void top_a(Candidates* c, double a, Scratch* s) noexcept nogil:
    # p >= a pmax^2 with p = e^(l - top) / total and pmax = 1 / total
    keep_from(c, c.top + log(a / sum_exp(c.logits, c.n, c.top)), s)


cdef void truncate(Candidates* c, const Settings* p, Scratch* s) noexcept nogil:
    if p.top_k > 0:
        top_k(c, p.top_k, s)
    if p.tfs_z < 1:
        tail_free(c, p.tfs_z, s)
    if p.typical_p < 1:
        typical(c, p.typical_p, s)
    if p.top_p < 1:
        top_p(c, p.top_p, s)
    if p.min_p > 0:
        keep_from(c, c.top + log(p.min_p), s)
    if p.top_a > 0:
        top_a(c, p.top_a, s)


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
    keep_from(c, c.top + p.temperature * (log(total) - mu * LN2), s)


cdef class Sampler:
    """Chooses the tokens of one sequence.

    `history` is the prompt and what has been generated so far, for the penalties; `n_generated` of them
    were generated. Given the same seed, a sampler made with the history and `mu` of another goes on
    exactly as that one would. Not for use by two threads at the same time.
    """

    cdef readonly size_t n_vocab
    cdef readonly uint64_t seed
    cdef readonly uint64_t n_generated
    cdef Settings settings
    cdef bint greedy, ignore_eos, penalise, post
    cdef int logprobs
    cdef uint64_t min_tokens
    cdef double _mu
    cdef vector[int32_t] bias_ids
    cdef vector[float] biases
    cdef vector[int32_t] eog  # banned by ignore_eos
    cdef vector[int32_t] ends  # banned before min_tokens
    cdef Window window  # for the penalties
    # The last choice
    cdef int32_t token
    cdef double logprob
    cdef vector[int32_t] top_ids
    cdef vector[double] top_logprobs

    def __init__(self, params, n_vocab, eog_ids, history=(), n_generated=0, mu=None):
        if not 0 < n_vocab < 2**31:
            raise ConfigError(f"n_vocab must be a positive 32-bit number, not {n_vocab}")
        p = sampling.validate(params, n_vocab)
        self.n_vocab, self.seed, self.n_generated = n_vocab, p.seed, n_generated
        self.settings = Settings(
            repeat=p.repeat_penalty, frequency=p.frequency_penalty, presence=p.presence_penalty,
            mirostat=p.mirostat, tau=p.mirostat_tau, eta=p.mirostat_eta, tfs_z=p.tfs_z, typical_p=p.typical_p,
            top_p=p.top_p, min_p=p.min_p, top_a=p.top_a, temperature=p.temperature, top_k=p.top_k,
        )
        self.greedy, self.ignore_eos = sampling.is_greedy(p), p.ignore_eos
        self.min_tokens = p.min_tokens
        self.logprobs = -1 if p.logprobs is None else p.logprobs
        self.post = p.post_sampling
        self._mu = 2 * p.mirostat_tau if mu is None else mu
        if not isfinite(self._mu):
            raise ConfigError(f"mu must be finite, not {mu}")
        for token, bias in p.logit_bias.items():
            self.bias_ids.push_back(token)
            self.biases.push_back(bias)
        for token in sorted(eog_ids):
            if 0 <= token < n_vocab:  # one that the model has no logit for cannot come up
                self.eog.push_back(token)
                self.ends.push_back(token)
        for token in p.stop_token_ids:
            self.ends.push_back(token)
        self.penalise = p.repeat_last_n != 0 and (
            p.repeat_penalty != 1 or p.frequency_penalty != 0 or p.presence_penalty != 0)
        self.window.size = max(p.repeat_last_n, 0)
        if self.penalise:
            recent = history[-p.repeat_last_n:] if p.repeat_last_n > 0 else history
            for token in recent:
                if not 0 <= token < n_vocab:
                    raise ConfigError(f"history holds token {token}, outside a vocabulary of {n_vocab}")
                self.window.add(token)

    @property
    def mu(self):
        """Mirostat's state, or None when it is not in force."""
        return self._mu if self.settings.mirostat and not self.greedy else None

    def sample(self, const float[::1] logits not None, const uint32_t[::1] mask=None):
        """The next token. `mask`: bit i % 32 of word i // 32 tells whether token i is allowed.

        Raises GgmlError if the logits are not those of a working model, ConfigError if every token is banned.
        A call that raises leaves the sampler as it was.
        """
        if <size_t>logits.shape[0] != self.n_vocab:
            raise ConfigError(f"{logits.shape[0]} logits for a vocabulary of {self.n_vocab}")
        cdef const uint32_t* bits = NULL
        if mask is not None:
            if <size_t>mask.shape[0] * 32 < self.n_vocab:
                raise ConfigError(f"a mask of {mask.shape[0]} words for a vocabulary of {self.n_vocab}")
            bits = &mask[0]
        cdef Status status
        with nogil:
            status = self.choose(&logits[0], bits)
        if status == BROKEN:
            bad = [i for i, x in enumerate(logits) if not x < INFINITY]
            raise GgmlError(f"no finite logit for {len(bad)} of {self.n_vocab} tokens (token {bad[0]} has "
                            f"{logits[<Py_ssize_t>bad[0]]}): the weights or the device are faulty")
        if status == EMPTY:
            raise GgmlError(f"no finite logit, {self.n_vocab} x -inf: the weights or the device are faulty")
        if status == ALL_BANNED:
            raise ConfigError("every token is banned: logit_bias, the ban of end-of-generation tokens "
                              "(min_tokens, ignore_eos) and the constraint on the output leave nothing")
        if self.logprobs < 0:
            return Token(self.token, None, None, self.mu)
        top = [(self.top_ids[i], self.top_logprobs[i]) for i in range(self.top_ids.size())]
        return Token(self.token, self.logprob, top, self.mu)

    cdef Status choose(self, const float* logits, const uint32_t* mask) noexcept nogil:
        cdef Scratch* s = scratch()
        cdef size_t n = self.n_vocab, blocks = n_blocks(n)
        cdef float* row_max = grow(s.row_max, blocks)
        if not block_maxima(logits, n, row_max):
            return BROKEN
        cdef Candidates c
        c.logits = logits
        c.ids = NULL
        c.block_max = row_max
        c.n = n
        c.top = max_of(row_max, blocks)
        if c.top == -INFINITY:
            return EMPTY
        cdef float row_top = c.top
        if self.edits() or mask != NULL:
            self.edit(&c, mask, s)
            if c.top == -INFINITY:
                return ALL_BANNED
        if self.greedy:
            self.token = <int32_t>argmax(c.logits, n, c.block_max)
            self.certain()
        else:
            self.draw(&c, s)
        if self.logprobs >= 0 and not self.post:
            self.explain(logits, row_max, row_top + log(sum_exp(logits, n, row_top)), s)
        if self.penalise:
            self.window.add(self.token)
        self.n_generated += 1
        return OK

    cdef bint edits(self) noexcept nogil:
        return (self.bias_ids.size() > 0 or self.window.ids.size() > 0
                or (self.ignore_eos and self.eog.size() > 0)
                or (self.n_generated < self.min_tokens and self.ends.size() > 0))

    cdef void edit(self, Candidates* c, const uint32_t* mask, Scratch* s) noexcept nogil:
        """Points the candidates to a copy of the row, with bias, penalties, bans and mask applied."""
        cdef size_t i, n = c.n, blocks = n_blocks(n)
        cdef float* row = grow(s.row, n)
        cdef float* block_max = grow(s.block_max, blocks)
        memcpy(row, c.logits, n * sizeof(float))
        memcpy(block_max, c.block_max, blocks * sizeof(float))
        c.logits = row
        c.block_max = block_max
        cdef const vector[int32_t]* banned = NULL
        if self.n_generated < self.min_tokens:
            banned = &self.ends
        elif self.ignore_eos:
            banned = &self.eog
        for i in range(self.bias_ids.size()):
            row[self.bias_ids[i]] = capped(row[self.bias_ids[i]] + self.biases[i])
        cdef float x
        for i in range(self.window.ids.size()):
            x = row[self.window.ids[i]]
            x = x / self.settings.repeat if x > 0 else x * self.settings.repeat
            x -= self.window.counts[i] * self.settings.frequency + self.settings.presence
            row[self.window.ids[i]] = capped(x)
        if banned != NULL:
            for i in range(banned.size()):
                row[banned[0][i]] = -INFINITY
        if mask != NULL:
            apply_mask(row, n, mask)
        cdef size_t touched = self.bias_ids.size() + self.window.ids.size()
        if banned != NULL:
            touched += banned.size()
        if mask != NULL or touched >= blocks:
            block_maxima(row, n, block_max)
        else:
            refresh(row, n, self.bias_ids, block_max)
            refresh(row, n, self.window.ids, block_max)
            if banned != NULL:
                refresh(row, n, banned[0], block_max)
        c.top = max_of(block_max, blocks)

    cdef void draw(self, Candidates* c, Scratch* s) noexcept nogil:
        cdef const Settings* p = &self.settings
        if p.mirostat == 0:
            truncate(c, p, s)
        elif p.mirostat == 1:
            mirostat_1(c, p, self._mu, s)
        else:
            mirostat_2(c, p, self._mu, s)
        cdef double total = weigh(c.logits, c.n, c.top, <float>(1 / p.temperature), s)
        cdef size_t i = pick(s, c.n, total, uniform(self.seed, self.n_generated))
        self.token = c.ids[i] if c.ids != NULL else <int32_t>i
        if self.logprobs >= 0 and self.post:
            self.explain_draw(c, total, i, s.weights.data())
        cdef double surprise
        if p.mirostat:
            surprise = (log(total) - (<double>c.logits[i] - c.top) / p.temperature) / LN2
            self._mu -= p.eta * (surprise - p.tau)

    cdef void certain(self) noexcept nogil:
        """There was no choice."""
        self.logprob = 0
        self.top_ids.clear()
        self.top_logprobs.clear()
        if self.logprobs > 0:
            self.top_ids.push_back(self.token)
            self.top_logprobs.push_back(0)

    cdef void explain_draw(self, const Candidates* c, double total, size_t index,
                           const float* weights) noexcept nogil:
        """Log-probabilities of the chosen and of the most likely tokens among those that it was drawn from."""
        cdef size_t i, best = 0, last = 0
        cdef float most, bound = INFINITY
        self.logprob = log(weights[index] / total)
        self.top_ids.clear()
        self.top_logprobs.clear()
        for _ in range(self.logprobs):  # at most 20
            most = 0
            for i in range(c.n):
                if weights[i] > most and (weights[i] < bound or (weights[i] == bound and i > last)):
                    best, most = i, weights[i]
            if most == 0:
                break
            self.top_ids.push_back(c.ids[best] if c.ids != NULL else <int32_t>best)
            self.top_logprobs.push_back(log(most / total))
            bound, last = most, best

    cdef void explain(self, const float* row, const float* row_max, double log_total,
                      Scratch* s) noexcept nogil:
        """Log-probabilities of the chosen and of the most likely tokens in the unmodified row."""
        cdef size_t i
        self.logprob = row[self.token] - log_total
        self.top_ids.clear()
        self.top_logprobs.clear()
        if self.logprobs == 0:
            return
        top_values(row, self.n_vocab, row_max, self.logprobs, s)
        for i in range(s.values.size()):
            self.top_ids.push_back(s.ids[i])
            self.top_logprobs.push_back(s.values[i] - log_total)
