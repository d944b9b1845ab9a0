"""LongRoPE: rotary factors that depend on the length of the whole sequence (Phi 3 and 4)."""

from __future__ import annotations

from variant import Variant, make


def longrope(what: str, n_original: int, *, hf: bool = False) -> Variant:
    parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.3, 1.2, 1.5, 1.4],
        "long_factor": [1.2, 1.9, 3.1, 5.3, 9.7, 21.0],
        "original_max_position_embeddings": n_original,
        "partial_rotary_factor": 0.75,
    }
    return make(
        what,
        "Phi3ForCausalLM",
        sliding_window=None,
        original_max_position_embeddings=n_original,
        rope_parameters=parameters,
        partial_rotary_factor=0.75,
        hf=hf,
    )


VARIANTS = {
    "phi3-long": longrope("factors for long sequences, partial rotary", 64, hf=True),
    "phi3-crossing": longrope("a sequence that becomes long while it is generated", 160),
}
