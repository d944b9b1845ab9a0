# Functions of C only, for `engine.sampling.sampler`.
