"""Damaged GGUF files: each opens and then behaves, or is refused with a ModelError. Nothing else is allowed.

More than 8,000 cases; the seeds are fixed, hypothesis draws its own. A fuzzer that sees coverage: tests/fuzz.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.builders.gguf import (
    BOOL,
    F32,
    F64,
    I32,
    STRING,
    TENSOR_TYPES,
    U8,
    U32,
    U64,
    GGUFBuilder,
    tiny_llama,
)
from support.builders.mutations import Mutation, Workfile, every_byte, mutations
from support.quick import every, examples
from support.references.damaged import behaves

STORIES = Path(__file__).parents[3] / "models" / "stories.gguf"


def run(workfile: Workfile, cases: list[Mutation], *, with_info: bool = False) -> tuple[int, int]:
    """(accepted, refused)"""
    accepted = 0
    for mutation in cases:
        with workfile.damaged(mutation) as path:
            try:
                accepted += behaves(path, with_info=with_info)
            except BaseException as error:
                error.add_note(f"with {mutation}")
                raise
    return accepted, len(cases) - accepted


@pytest.mark.exhaustive  # takes seconds
def test_damage_to_any_header_byte_is_refused_or_read(tmp_path):
    data = tiny_llama(n_layers=1, n_vocab=8).build()
    cases = list(every_byte(data, masks=(0xFF, 0x01)))
    assert len(cases) > 3000
    accepted, refused = run(Workfile(tmp_path / "m.gguf", data), cases)
    # flips in names and free text pass, all that decides sizes and places does not
    assert accepted > 300
    assert refused > 1500


def test_any_truncation_is_refused(tmp_path):
    b = tiny_llama(n_layers=1, n_vocab=8)
    data = b.build()
    cases = [Mutation(size=n) for n in range(len(b.header()) + 40)]
    cases += [Mutation(size=n) for n in range(len(data) - 40, len(data))]
    accepted, refused = run(Workfile(tmp_path / "m.gguf", data), cases)
    assert (accepted, refused) == (0, len(cases))


@pytest.mark.parametrize("seed", every(2, range(2)))
def test_random_damage_to_a_tiny_model_is_refused_or_read(tmp_path, seed):
    data = tiny_llama(n_layers=1, n_vocab=8).build()
    cases = list(mutations(data, 1000, seed))
    accepted, refused = run(Workfile(tmp_path / "m.gguf", data), cases, with_info=seed == 0)
    assert accepted > 20
    assert refused > 500


@pytest.mark.e2e
def test_random_damage_to_the_bundled_model_is_refused_or_read(tmp_path):
    data = STORIES.read_bytes()
    cases = [m for m in mutations(data, 800, seed=7) if m.size is None]
    cases += [Mutation(size=len(data) * i // 50) for i in range(50)]
    accepted, refused = run(Workfile(tmp_path / "m.gguf", data), cases)
    assert accepted > 20
    assert refused > 300


KINDS = (U8, U32, I32, F32, BOOL, STRING, U64, F64)
VALUES = {
    U8: st.integers(0, 255),
    U32: st.integers(0, 2**32 - 1),
    I32: st.integers(-(2**31), 2**31 - 1),
    F32: st.floats(width=32),
    BOOL: st.booleans(),
    STRING: st.text(max_size=20),
    U64: st.integers(0, 2**64 - 1),
    F64: st.floats(),
}
entries = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), VALUES[kind] | st.lists(VALUES[kind], max_size=5))
)
keys = st.sampled_from(
    [*tiny_llama(n_layers=1, n_vocab=8).keys, "general.alignment", "general.type", "split.count"]
)
shapes = st.lists(st.integers(1, 70) | st.sampled_from([0, 2**31, 2**62, 2**63]), min_size=1, max_size=4)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(keys | st.text(min_size=1, max_size=20), entries, max_size=4))
def test_any_value_of_a_known_key_is_refused_or_read(tmp_path, changes):
    b = tiny_llama(n_layers=1, n_vocab=8)
    for key, (kind, value) in changes.items():
        b.key(key, value, kind)
    behaves(b.write(tmp_path / "m.gguf"), with_info=True)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.lists(
        st.tuples(
            st.text(max_size=8),
            shapes,
            st.sampled_from(list(TENSOR_TYPES)),
            st.none() | st.integers(0, 20).map(lambda n: n * 32) | st.integers(0, 2**64 - 1),
        ),
        max_size=4,
    ),
    alignment=st.sampled_from([None, 8, 32, 64]),
)
def test_open_of_any_tensors_reads_or_refuses(tmp_path, tensors, alignment):
    b = GGUFBuilder(alignment=alignment).key("general.architecture", "llama")
    for name, shape, kind, offset in tensors:
        b.tensor(name, tuple(shape), kind, offset=offset, data=None if max(shape) < 71 else b"abcd")
    behaves(b.write(tmp_path / "m.gguf"), with_info=True)


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200))
def test_any_bytes_after_the_magic_are_refused_or_read(tmp_path, tail):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + tail)
    assert not behaves(path)
