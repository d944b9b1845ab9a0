"""The steps between the edited row of logits and the draw; see `engine.sampling.parameters`."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint64_t
from libcpp.vector cimport vector

from engine.sampling.kernels cimport Dry, Scratch, Window


cdef enum Step:
    PENALTIES, DRY, TOP_N_SIGMA, TOP_K, TFS_Z, TYP_P, TOP_P, MIN_P, TOP_A, XTC, TEMPERATURE


cdef struct Settings:  # InferenceParameters as C values
    int mirostat
    double tau, eta
    double top_n_sigma, tfs_z, typical_p, top_p, min_p, top_a
    double xtc_probability, xtc_threshold
    double temperature, dynatemp_range, dynatemp_exponent
    double adaptive_target, adaptive_decay  # target < 0: a plain draw
    size_t top_k, min_keep


cdef struct Candidates:
    # What is left to draw from, in id order. At first the whole row: `ids` null (the index is the id), with
    # block maxima, and with -inf for banned tokens; after the first `keep` a compact list, all finite.
    const float* logits
    const int32_t* ids
    const float* block_max
    size_t n
    float top
    float scale  # of the logits in the draw: 1 / temperature, if that is the last step


cdef struct Context:  # of one token
    Window* window
    Dry* dry
    double chance  # in [0, 1), for xtc
    Scratch* s


cdef void run(Candidates* c, const vector[Step]& steps, const Settings* p, Context* context) noexcept nogil
cdef void mirostat_1(Candidates* c, const Settings* p, double mu, Scratch* s) noexcept nogil
cdef void mirostat_2(Candidates* c, const Settings* p, double mu, Scratch* s) noexcept nogil
cdef double adapt(Candidates* c, const Settings* p, double average, Scratch* s) noexcept nogil
