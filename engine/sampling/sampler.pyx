# cython: initializedcheck=False
"""Chooses the next token from a row of logits. The steps and their order: `engine.sampling.parameters`."""

from libc.math cimport INFINITY, isfinite, log
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from engine.sampling cimport chain
from engine.sampling.chain cimport Candidates, Context, Settings, Step
from engine.sampling.kernels cimport (
    Dry,
    Scratch,
    Window,
    apply_mask,
    argmax,
    block_maxima,
    capped,
    grow,
    max_of,
    n_blocks,
    pick,
    refresh,
    scratch,
    splitmix,
    sum_exp,
    top_values,
    uniform,
    weigh,
)

from engine.sampling import parameters as sampling
from engine.errors import ConfigError, GgmlError
from engine.types import Token


cdef double LN2 = 0.6931471805599453

cdef enum Status:
    OK, BROKEN, EMPTY, ALL_BANNED

_STEPS = {
    "penalties": Step.PENALTIES, "dry": Step.DRY, "top_n_sigma": Step.TOP_N_SIGMA, "top_k": Step.TOP_K,
    "tfs_z": Step.TFS_Z, "typ_p": Step.TYP_P, "top_p": Step.TOP_P, "min_p": Step.MIN_P, "top_a": Step.TOP_A,
    "xtc": Step.XTC, "temperature": Step.TEMPERATURE,
}


cdef recent(history, last_n, n_vocab):
    """The last tokens; -1: all of them. ConfigError if one is outside of the vocabulary."""
    tokens = history[-last_n:] if last_n > 0 else history
    for token in tokens:
        if not 0 <= token < n_vocab:
            raise ConfigError(f"history holds token {token}, outside a vocabulary of {n_vocab}")
    return tokens


cdef class Sampler:
    """Chooses the tokens of one sequence.

    `history` is the prompt and what has been generated so far, for penalties and DRY; `n_generated` of them
    were generated. Given the same seed, a sampler made with the history and `state` of another goes on
    exactly as that one would. Not for use by two threads at the same time.
    """

    cdef readonly size_t n_vocab
    cdef readonly uint64_t seed
    cdef readonly uint64_t n_generated
    cdef Settings settings
    cdef bint greedy, ignore_eos, adaptive, post
    cdef int logprobs
    cdef uint64_t min_tokens
    cdef double _state
    cdef vector[int32_t] bias_ids
    cdef vector[float] biases
    cdef vector[int32_t] eog  # banned by ignore_eos
    cdef vector[int32_t] ends  # banned before min_tokens
    cdef vector[Step] edits  # steps before all others, which change the row in place: penalties and DRY
    cdef vector[Step] steps  # the others
    cdef bint penalise, has_dry
    cdef Window window
    cdef Dry dry
    # The last choice
    cdef int32_t token
    cdef double logprob
    cdef vector[int32_t] top_ids
    cdef vector[double] top_logprobs

    def __init__(self, params, n_vocab, eog_ids, history=(), n_generated=0, state=None):
        if not 0 < n_vocab < 2**31:
            raise ConfigError(f"n_vocab must be a positive 32-bit number, not {n_vocab}")
        p = sampling.validate(params, n_vocab)
        self.n_vocab, self.seed, self.n_generated = n_vocab, p.seed, n_generated
        self.settings = Settings(
            mirostat=p.mirostat, tau=p.mirostat_tau, eta=p.mirostat_eta, top_n_sigma=p.top_n_sigma,
            tfs_z=p.tfs_z, typical_p=p.typical_p, top_p=p.top_p, min_p=p.min_p, top_a=p.top_a,
            xtc_probability=p.xtc_probability, xtc_threshold=p.xtc_threshold, temperature=p.temperature,
            dynatemp_range=p.dynatemp_range, dynatemp_exponent=p.dynatemp_exponent,
            adaptive_target=p.adaptive_target, adaptive_decay=p.adaptive_decay,
            top_k=p.top_k, min_keep=p.min_keep,
        )
        self.greedy, self.ignore_eos = sampling.is_greedy(p), p.ignore_eos
        self.adaptive = sampling.is_adaptive(p)
        self.min_tokens = p.min_tokens
        self.logprobs = -1 if p.logprobs is None else p.logprobs
        self.post = p.post_sampling
        self._state = (2 * p.mirostat_tau if p.mirostat else p.adaptive_target) if state is None else state
        if not isfinite(self._state):
            raise ConfigError(f"state must be finite, not {state}")
        for token, bias in p.logit_bias.items():
            self.bias_ids.push_back(token)
            self.biases.push_back(bias)
        for token in sorted(eog_ids):
            if 0 <= token < n_vocab:  # one that the model has no logit for cannot come up
                self.eog.push_back(token)
                self.ends.push_back(token)
        for token in p.stop_token_ids:
            self.ends.push_back(token)
        for name in sampling.active_steps(p):
            if name in sampling.REPETITION and self.steps.empty():
                self.edits.push_back(_STEPS[name])
            else:
                self.steps.push_back(_STEPS[name])
        self.remember(p, history)

    def break_repetitions(self, breakers):
        """Set the token sequences that end a repetition for DRY; see `engine.sampling.dry_breakers`."""
        cdef vector[int32_t] tokens
        for sequence in breakers if self.has_dry else ():
            tokens = sequence
            self.dry.add_breaker(tokens.data(), tokens.size())

    cdef remember(self, p, history):
        """Set up what counts the tokens so far."""
        steps = sampling.active_steps(p)
        self.penalise, self.has_dry = "penalties" in steps, "dry" in steps
        self.window.repeat, self.window.size = p.repeat_penalty, max(p.repeat_last_n, 0)
        self.window.frequency, self.window.presence = p.frequency_penalty, p.presence_penalty
        self.dry.multiplier, self.dry.base = p.dry_multiplier, p.dry_base
        self.dry.allowed_length, self.dry.last_n = p.dry_allowed_length, max(p.dry_penalty_last_n, 0)
        cdef int32_t token
        if self.penalise:
            for token in recent(history, p.repeat_last_n, self.n_vocab):
                self.window.add(token)
        if self.has_dry:
            for token in recent(history, p.dry_penalty_last_n, self.n_vocab):
                self.dry.add(token)

    @property
    def state(self):
        """Mirostat's mu, adaptive-p's average of probabilities, or None when neither is in force."""
        return self._state if not self.greedy and (self.settings.mirostat or self.adaptive) else None

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
            return Token(self.token, None, None, self.state)
        top = [(self.top_ids[i], self.top_logprobs[i]) for i in range(self.top_ids.size())]
        return Token(self.token, self.logprob, top, self.state)

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
        if self.has_dry:
            self.dry.find()
        if self.changes_row() or mask != NULL:
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
        if self.has_dry:
            self.dry.add(self.token)
        self.n_generated += 1
        return OK

    cdef bint changes_row(self) noexcept nogil:
        return (self.bias_ids.size() > 0
                or (self.edits.size() > 0 and self.window.ids.size() + self.dry.ids.size() > 0)
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
        cdef size_t touched = self.bias_ids.size()
        for i in range(self.edits.size()):
            if self.edits[i] == Step.PENALTIES:
                self.window.apply(row, NULL, n)
                touched += self.window.ids.size()
            else:
                self.dry.apply(row, NULL, n)
                touched += self.dry.ids.size()
        if banned != NULL:
            for i in range(banned.size()):
                row[banned[0][i]] = -INFINITY
            touched += banned.size()
        if mask != NULL:
            apply_mask(row, n, mask)
        if mask != NULL or touched >= blocks:
            block_maxima(row, n, block_max)
        else:
            refresh(row, n, self.bias_ids, block_max)
            refresh(row, n, self.window.ids, block_max)
            refresh(row, n, self.dry.ids, block_max)
            if banned != NULL:
                refresh(row, n, banned[0], block_max)
        c.top = max_of(block_max, blocks)

    cdef void draw(self, Candidates* c, Scratch* s) noexcept nogil:
        cdef const Settings* p = &self.settings
        cdef Context context
        c.scale = <float>(1 / p.temperature) if p.mirostat else 1
        if p.mirostat == 0:
            context.window, context.dry, context.s = &self.window, &self.dry, s
            context.chance = uniform(splitmix(self.seed), self.n_generated)  # not that of the draw
            chain.run(c, self.steps, p, &context)
        elif p.mirostat == 1:
            chain.mirostat_1(c, p, self._state, s)
        else:
            chain.mirostat_2(c, p, self._state, s)
        cdef double total
        if self.adaptive:
            total = chain.adapt(c, p, self._state, s)
        else:
            total = weigh(c.logits, c.n, c.top, c.scale, s)
        cdef size_t i = pick(s, c.n, total, uniform(self.seed, self.n_generated))
        self.token = c.ids[i] if c.ids != NULL else <int32_t>i
        if self.logprobs >= 0 and self.post:
            self.explain_draw(c, total, i, s.weights.data())
        cdef double surprise
        if p.mirostat:
            surprise = (log(total) - (<double>c.logits[i] - c.top) / p.temperature) / LN2
            self._state -= p.eta * (surprise - p.tau)
        elif self.adaptive:
            self._state = p.adaptive_decay * self._state + (1 - p.adaptive_decay) * s.probs[i]

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
