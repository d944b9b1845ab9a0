"""One schema, four forms: flags, variables, YAML and the sample file agree."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from engine.config import ModelParameters
from engine.errors import ConfigError
from server.config import sources as options
from server.config.settings import SECTIONS, Settings
from support.options import parse, write

CONFIGS = Path(__file__).parents[3] / "configs"


def test_defaults_are_the_documented_ones():
    settings = options.load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.batch_size, settings.parallel, settings.use_gpu, settings.gpu_layers) == (
        512,
        8,
        "auto",
        "all",
    )
    assert settings.model_parameters() == ModelParameters()


def test_precedence_is_flag_then_variable_then_file_then_default(tmp_path, monkeypatch):
    path = write(tmp_path, "port: 1\nparallel: 11\nthreads: 12\n")
    assert parse("--config", str(path)).port == 1
    monkeypatch.setenv("GGSERVE_PORT", "2")
    monkeypatch.setenv("GGSERVE_PARALLEL", "22")
    settings = parse("--config", str(path), "--port", "3")
    assert (settings.port, settings.parallel, settings.threads, settings.batch_size) == (3, 22, 12, 512)


def test_config_file_may_be_named_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("GGSERVE_CONFIG", str(write(tmp_path, "port: 77")))
    assert parse().port == 77
    other = tmp_path / "other.yml"
    other.write_text("port: 78")
    assert parse("--config", str(other)).port == 78


def test_list_variables_are_comma_separated_or_json(monkeypatch):
    monkeypatch.setenv("GGSERVE_MODEL", "a=x.gguf, y.gguf")
    monkeypatch.setenv("GGSERVE_DEVICE", '["CUDA0", "a,b"]')
    monkeypatch.setenv("GGSERVE_TENSOR_SPLIT", "3,1")
    monkeypatch.setenv("GGSERVE_API_KEY", "k1,k2")
    monkeypatch.setenv("GGSERVE_THREADS", "")  # empty is unset
    settings = options.load()
    assert settings.models() == {"a": Path("x.gguf"), "y": Path("y.gguf")}
    assert settings.device == ["CUDA0", "a,b"]
    assert settings.tensor_split == [3.0, 1.0]
    assert [key.get_secret_value() for key in settings.api_key] == ["k1", "k2"]
    assert settings.threads is None


def test_yaml_on_off_and_null_are_read_by_the_options_type(tmp_path):
    assert options.load(file=write(tmp_path, "flash_attn: on\nuse_gpu: off")).flash_attn == "on"
    assert options.load(file=write(tmp_path, "flash_attn: off\nuse_gpu: off")).use_gpu is False
    assert options.load(file=write(tmp_path, "use_gpu: auto\nthreads: null")).threads is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "unknown option 'prot'; did you mean 'port'?"),
        ("max-queue: 1", "unknown option 'max-queue'; did you mean 'max_queue'?"),
        ("zzz: 1", "unknown option 'zzz'; `ggserve config` lists all options"),
        ("port: 1\nport: 2", "duplicate key 'port'"),
        ("- port", "must contain keys and values"),
        ("port: [", "options.yml, line"),
        ("port: 70000", "options.yml: port must be less than or equal to 65535"),
        ("port: 1.5", "options.yml: port must be a valid integer"),
        ("kv_type: f8", "options.yml: kv_type must be one of f16, f32"),
        ("rpc: nowhere", "options.yml: rpc must be HOST:PORT"),
        ("gpu_layers: many", "options.yml: gpu_layers must be a number (0 or more) or all or auto"),
        ("kv_cells: 0", "options.yml: kv_cells must be a number (1 or more) or auto"),
        ("model: [a/x.gguf, b/x.gguf]", "two files would be called 'x'"),
        ("model: ['a=']", "has no path"),
        ("tensor_split: [0, 0]", "tensor_split: at least one share must be above 0"),
        ("cors_origins: ['*']\napi_key: k", "cors_origins: * cannot be combined with API keys"),
    ],
)
def test_bad_file_is_reported_in_one_line_with_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        options.load(file=write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_name_the_option_as_it_was_given(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"^--port must be a valid integer"):
        parse("--port", "x")
    with pytest.raises(ConfigError, match=r"^--context-size must be greater than or equal to 2"):
        parse("--context-size", "1")
    with pytest.raises(ConfigError, match="No such file"):
        parse("--config", str(tmp_path / "absent.yml"))
    binary = tmp_path / "x.yml"
    binary.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        options.load(file=binary)
    monkeypatch.setenv("GGSERVE_PORT", "x")
    with pytest.raises(ConfigError, match=r"^GGSERVE_PORT must be a valid integer"):
        parse()


def test_misspelt_variables_get_a_warning(monkeypatch):
    monkeypatch.setenv("GGSERVE_PRALLEL", "3")
    monkeypatch.setenv("GGSERVE_BACKENDS", "cpu")
    assert options.unknown_environment() == [
        "GGSERVE_PRALLEL in the environment has no effect; did you mean GGSERVE_PARALLEL?"
    ]


def test_keys_are_never_shown():
    settings = parse("--api-key", "cli-secret")
    for shown in (repr(settings), str(settings), options.render(settings)):
        assert "secret" not in shown
    with pytest.raises(ConfigError) as caught:
        parse("--api-key", "cli-secret", "--api-key", " ")
    assert "secret" not in str(caught.value)


def test_answered_host_names_follow_host_and_allowed_hosts():
    assert "localhost" in (parse().host_names() or ())
    assert parse("--host", "0.0.0.0").host_names() is None
    allowed = parse("--host", "0.0.0.0", "--allowed-hosts", "Chat.example").host_names() or set()
    assert {"chat.example", "127.0.0.1"} <= allowed  # a health check asks the latter
    assert not {"0.0.0.0", "other.example"} & allowed
    assert parse("--allowed-hosts", "*").host_names() is None
    assert parse("--host", "::1").listens_locally
    assert not parse("--host", "example.org").listens_locally


def test_every_option_is_described_and_in_a_section():
    parser = argparse.ArgumentParser()
    options.add_options(parser, serve=True)
    text = parser.format_help()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra["section"] in SECTIONS
        assert "--" + name.replace("_", "-") in text


def test_infer_has_only_the_options_about_the_model():
    assert parse("-m", "x.gguf", "--threads", "2", serve=False).threads == 2
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        parse("--port", "1", serve=False)


def test_sample_file_equals_the_output_of_config():
    assert (CONFIGS / "sample.yml").read_text(encoding="utf-8") == options.render(Settings())


@pytest.mark.parametrize(
    "path", sorted(set(CONFIGS.glob("*.yml")) - {CONFIGS / "models.yml"}), ids=lambda path: path.name
)
def test_shipped_files_load(path):
    settings = options.load(file=path)
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in loaded.items():
        assert getattr(settings, key) == value


def test_rendered_options_read_back_the_same(tmp_path):
    settings = parse(
        "-m name=/models/a.gguf --use-gpu --tensor-split 2,1 --kv-cells 900 --flash-attn on",
        "--rpc box:50052 --request-timeout-s 9 --log-format json",
        "--api-key-file keys --allowed-hosts a:b",
    )
    assert options.load(file=write(tmp_path, options.render(settings))) == settings


def test_several_addresses_are_read_and_local_only_if_all_are():
    settings = parse("--host 127.0.0.1,::1")
    assert settings.hosts() == ["127.0.0.1", "::1"]
    assert settings.listens_locally
    assert not parse("--host 127.0.0.1,0.0.0.0").listens_locally
    with pytest.raises(ConfigError, match="must name at least one address"):
        parse("--host ,")


def test_placement_options_of_experts_and_tensors_are_checked():
    assert options.load().model_parameters().cpu_experts is None
    assert options.load({"cpu_moe": True}).model_parameters().cpu_experts == "all"
    assert options.load({"n_cpu_moe": 0}).model_parameters().cpu_experts == 0
    params = options.load({"override_tensor": ["exps=CPU", r"blk\.1\.=CUDA0"]}).model_parameters()
    assert params.tensor_overrides == (("exps", "CPU"), (r"blk\.1\.", "CUDA0"))
    with pytest.raises(ConfigError, match="n_cpu_moe"):
        options.load({"cpu_moe": True, "n_cpu_moe": 2})
    for text in ("exps", "=CPU", "exps="):
        with pytest.raises(ConfigError, match="PATTERN=DEVICE"):
            options.load({"override_tensor": [text]})
