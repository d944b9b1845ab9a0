"""A converter is a file beside its architecture's, found by the same name."""

from __future__ import annotations

import pytest

from engine import architectures
from engine.convert.huggingface import converter_for, converter_of
from engine.errors import UnsupportedModelError


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_has_a_converter(name: str) -> None:
    converter = converter_of(name)
    assert converter.architecture == name
    assert converter.__module__.endswith(f".{architectures.module_name(name)}")
    assert "token_embd" in converter.tensor_names.values()


def test_a_model_class_belongs_to_one_converter() -> None:
    classes = [cls for name in architectures.names() for cls in converter_of(name).model_classes]
    assert len(set(classes)) == len(classes)
    assert converter_for("MixtralForCausalLM") is converter_of("llama")


def test_an_unknown_model_class_is_refused_with_a_list_of_the_supported() -> None:
    with pytest.raises(UnsupportedModelError, match=r"RwkvForCausalLM.*BertModel, .*Starcoder2ForCausalLM"):
        converter_for("RwkvForCausalLM")
