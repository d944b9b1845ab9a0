"""What cannot be sampled, and whose fault it is."""

import numpy as np
import pytest

from engine.errors import ConfigError, GgmlError
from support.references.samplers import INF, NAN, drawn, greedy, row, sampler


@pytest.mark.parametrize("bad", [NAN, -NAN, INF])
@pytest.mark.parametrize("place", [0, 70, 99])
def test_row_with_nan_is_an_error_even_for_banned_tokens(bad, place):
    logits = np.zeros(100, np.float32)
    logits[place] = bad
    s = sampler(100, logit_bias={place: -INF}, temperature=0.0)
    with pytest.raises(GgmlError, match=rf"no finite logit for 1 of 100 tokens \(token {place} has"):
        s.sample(logits, np.zeros(4, np.uint32))
    assert s.n_generated == 0


def test_a_row_without_any_possible_token_is_an_error():
    with pytest.raises(GgmlError, match="no finite logit"):
        sampler(100).sample(np.full(100, -INF, np.float32))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banning_every_token_is_a_config_error(temperature):
    s = sampler(3, eog=[2], temperature=temperature, ignore_eos=True, logit_bias={0: -INF})
    with pytest.raises(ConfigError, match="every token is banned: logit_bias"):
        s.sample(row(1, 1, 1), np.array([0b101], dtype=np.uint32))
    assert s.n_generated == 0
    assert s.sample(row(1, 1, 1)).id == 1


def test_wrong_sizes_and_types_are_refused():
    s = sampler(40)
    with pytest.raises(ConfigError, match="39 logits for a vocabulary of 40"):
        s.sample(np.zeros(39, np.float32))
    with pytest.raises(ConfigError, match="mask of 1 words"):
        s.sample(np.zeros(40, np.float32), np.zeros(1, np.uint32))
    with pytest.raises(ValueError, match="dtype mismatch"):
        s.sample(np.zeros(40, np.float64))
    with pytest.raises(ConfigError, match="history holds token 40"):
        sampler(40, history=[1, 40], presence_penalty=1.0)
    with pytest.raises(ConfigError, match="logit_bias"):
        sampler(40, logit_bias={40: 1.0})
    with pytest.raises(ConfigError, match="state must be finite"):
        sampler(40, mirostat=2, state=NAN)
    with pytest.raises(ConfigError, match="n_vocab"):
        sampler(0)


def test_extreme_logits_and_penalties_stay_finite():
    big = float(np.finfo(np.float32).max)
    assert greedy(row(big, -big, 0), history=[0], repeat_penalty=0.001, logit_bias={0: 1e6}) == 0
    assert drawn(row(big, -big, 0), history=[0, 1], repeat_penalty=0.001) == {0}
    assert drawn(row(big, -big, 0), history=[0, 1], temperature=100.0, top_p=0.9, typical_p=0.9) == {0}
    assert drawn(row(-big, -big, -INF), top_k=5, tfs_z=0.9, typical_p=0.99, min_p=0.1, top_a=0.1) == {0, 1}
