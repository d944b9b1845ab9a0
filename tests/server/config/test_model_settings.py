"""Options of models and devices: names, aliases, and what they are for the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import ModelParameters
from engine.errors import ConfigError
from server.config import sources as options
from server.config.settings import Settings
from support.options import parse, write


def test_flags_set_the_model_parameters():
    settings = parse(
        "--use-gpu --gpu-layers 20 --device CUDA0 --device CPU --tensor-split 3,1",
        "--context-size 4096 --kv-cells 9000 --max-batch-tokens 256 --parallel 4 --threads 3 --no-mmap",
        "--kv-type q8_0 --mlock --flash-attn off --rpc 10.0.0.2:50052 --rpc box:50053",
    )
    assert settings.model_parameters() == ModelParameters(
        use_gpu=True,
        gpu_layers=20,
        devices=("CUDA0", "CPU"),
        tensor_split=(3.0, 1.0),
        context_size=4096,
        kv_cells=9000,
        max_batch_tokens=256,
        parallel=4,
        n_threads=3,
        kv_type="q8_0",
        use_mmap=False,
        mlock=True,
        flash_attn="off",
        rpc=("10.0.0.2:50052", "box:50053"),
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), "auto"), (("--use-gpu",), True), (("--use-gpu", "false"), False), (("--use-gpu", "auto"), "auto")],
)
def test_bare_use_gpu_means_true(flags, expected):
    assert parse(*flags, "--port", "1").use_gpu == expected
    assert parse("--port", "1", *flags).use_gpu == expected


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("model: one,two.gguf", {"one,two": "one,two.gguf"}),  # in YAML a string is one path
        ("model: [a=one.gguf, two.gguf]", {"a": "one.gguf", "two": "two.gguf"}),
        ("model: {a: one.gguf, b: two.gguf}", {"a": "one.gguf", "b": "two.gguf"}),
    ],
)
def test_models_of_a_config_file_are_read_in_every_form(tmp_path, text, models):
    settings = options.load(file=write(tmp_path, text))
    assert settings.models() == {name: Path(path) for name, path in models.items()}


def test_a_path_may_hold_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=3.gguf").touch()
    assert parse("-m", "lr=3.gguf").models() == {"lr=3": Path("lr=3.gguf")}
    assert parse("-m", "/runs/lr=3/m.gguf").models() == {"m": Path("/runs/lr=3/m.gguf")}
    assert parse("-m", "org/name=m.gguf").models() == {"org/name": Path("m.gguf")}


def test_sampling_defaults_are_checked_parameters(tmp_path):
    settings = parse("--default temperature=0.5 --default max-tokens=9")
    assert settings.sampling_defaults() == {"temperature": 0.5, "max_tokens": 9}
    assert parse("--default max_tokens=-1").sampling_defaults() == {"max_tokens": None}
    lists = {"samplers": ("top_k", "dry"), "dry_sequence_breakers": ("\n", ",")}
    settings = parse("--default", "samplers=top-k;dry", "--default", r'dry_sequence_breakers=["\n",","]')
    assert settings.sampling_defaults() == lists
    breakers = r'dry_sequence_breakers: ["\n", ","]'
    file = write(tmp_path, f"default: {{top_k: 40, samplers: [top_k, dry], {breakers}}}")
    assert parse(f"--config {file}").sampling_defaults() == {"top_k": 40, **lists}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("temperature", "temperature must be a number, not ''"),
        ("heat=1", "'heat=1' must be NAME=VALUE, where NAME is one of"),
        ("samplers=magic", "samplers: 'magic' is not a sampler; expected one of penalties, dry"),
        ("samplers=[5]", "samplers: must be a JSON list of texts"),
        ("dry_sequence_breakers=a", "dry_sequence_breakers: must be a JSON list of texts"),
        ("top_k=many", "top_k must be a number, not 'many'"),
        ("top_p=2", "top_p must lie between 0 and 1, not 2"),
        ("max_tokens=0", "max_tokens must lie between 1 and"),
    ],
)
def test_invalid_sampling_defaults_are_refused(value, message):
    with pytest.raises(ConfigError, match=r"^default: ") as error:
        parse("--default", value)
    assert message in str(error.value)


def test_chat_template_variables_are_read_and_checked(tmp_path, monkeypatch):
    assert parse('--chat-template-kwargs {"thinking":true}').chat_template_kwargs == {"thinking": True}
    file = write(tmp_path, "chat_template_kwargs: {a: [1]}\nreasoning: off\n")
    settings = options.load(file=file)
    assert settings.chat_template_kwargs == {"a": [1]}
    assert settings.reasoning == "off"
    monkeypatch.setenv("GGSERVE_CHAT_TEMPLATE_KWARGS", '{"b": null}')
    assert options.load().chat_template_kwargs == {"b": None}
    for value in ("[1]", "{", "5"):
        with pytest.raises(ConfigError, match="--chat-template-kwargs must be a JSON object"):
            parse("--chat-template-kwargs", value)


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("c=x", "alias: no model is called 'c'; the models are a, b"),
        ("b", "alias: two models would be called 'b'"),
        ("a=", "alias: '' is not a valid name"),
    ],
)
def test_invalid_aliases_are_refused(alias, message):
    with pytest.raises(ConfigError, match=message):
        parse("--model a=x.gguf --model b=y.gguf", f"--alias {alias}")


def test_aliases_map_to_their_models():
    settings = parse("--model a=x.gguf --model b=y.gguf --alias first --alias b=second")
    assert settings.aliases() == {"first": "a", "second": "b"}


def test_models_folder_replaces_the_default_model(tmp_path):
    settings = Settings(models_dir=tmp_path, alias=["small=s"])
    assert settings.models() == {}
    assert settings.aliases() == {"s": "small"}  # of a model that may come
    assert settings.model_parameters().memory_limit is None
    assert Settings(models_memory="2G").model_parameters().memory_limit == 2 << 30
    for wrong in ({"alias": ["s"]}, {"lora": ["a.gguf"]}):
        with pytest.raises(ValueError, match=r"alias|lora"):
            Settings(models_dir=tmp_path, **wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spec-type", "draft-simple"), "spec_type: draft-simple requires a draft model; give draft_model"),
        (
            ("-m", "a.gguf", "-m", "b.gguf", "--draft-model", "d.gguf"),
            "draft_model: it belongs to one model, but several are served",
        ),
        (("--models-dir", "models", "--draft-model", "d.gguf"), "draft_model: it belongs to one model"),
        (("--draft-gpu-layers", "-1"), "--draft-gpu-layers must be a number"),
    ],
)
def test_a_draft_model_that_cannot_draft_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)
