"""A converter is a file beside its architecture's, found by the same name."""

from __future__ import annotations

from collections import Counter
from typing import Any

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


def test_a_model_class_belongs_to_one_converter_or_config_json_decides() -> None:
    classes = Counter(cls for name in architectures.names() for cls in converter_of(name).model_classes)
    shared = {name for name, n in classes.items() if n > 1}
    assert shared == {"Mistral3ForConditionalGeneration", "NemotronHForCausalLM"}
    assert converter_for("MixtralForCausalLM", {}) is converter_of("llama")


@pytest.mark.parametrize(
    ("model_class", "config", "architecture"),
    [
        ("Mistral3ForConditionalGeneration", {"model_type": "mistral"}, "mistral3"),
        ("Mistral3ForConditionalGeneration", {"model_type": "mistral4"}, "mistral4"),
        ("NemotronHForCausalLM", {"hybrid_override_pattern": "M-*M"}, "nemotron_h"),
        ("NemotronHForCausalLM", {"hybrid_override_pattern": "ME*M"}, "nemotron_h_moe"),
        ("NemotronHForCausalLM", {"layers_block_type": ["linear_attention", "mlp"]}, "nemotron_h"),
        ("NemotronHForCausalLM", {"layers_block_type": ["linear_attention", "moe"]}, "nemotron_h_moe"),
    ],
)
def test_config_json_decides_between_converters_of_one_class(
    model_class: str, config: dict[str, Any], architecture: str
) -> None:
    assert converter_for(model_class, config) is converter_of(architecture)


def test_an_unknown_model_class_is_refused_with_a_list_of_the_supported() -> None:
    with pytest.raises(UnsupportedModelError, match=r"RwkvForCausalLM.*BertModel, .*Starcoder2ForCausalLM"):
        converter_for("RwkvForCausalLM", {})
