"""The command as a user meets it: what it prints, where, and its exit status."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from server.cli.main import COMMANDS, main
from support.logging_state import restored_logging
from support.server_process import BUNDLED, ROOT, ggserve, mistakes

MODEL = ROOT / "models" / "stories.gguf"


@pytest.fixture(autouse=True)
def _logging():
    with restored_logging():
        yield


def test_help_names_every_command_without_heavy_imports():
    code = "import sys; from server.cli.main import main; main(['--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    for name, text in COMMANDS.items():
        assert f"{name:<11}{text}" in done.stdout
    assert {"pydantic", "fastapi", "numpy", "asyncio", "rich"}.isdisjoint(done.stdout.split())


def test_the_engine_process_does_not_import_the_http_side():
    code = "import sys, server.worker.process.main; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert {"pydantic", "fastapi", "uvicorn", "asyncio", "rich"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ggserve {command}" in text
    assert "examples:" in text


def test_main_without_a_command_shows_the_help(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ggserve serve" in captured.err


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ggserve ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serv"], "ggserve: unknown command 'serv'; did you mean serve?"),
        (["xyzzy"], f"ggserve: unknown command 'xyzzy'; the commands are {', '.join(COMMANDS)}"),
        (["serve", "--prot", "1"], "ggserve serve: unknown argument --prot; did you mean --port?"),
        (["serve", "--port"], "ggserve serve: argument --port: expected one argument"),
        (["serve", "--port", "x"], "ggserve: --port must be a valid integer"),
        (["serve", "--kv-type", "f8"], "ggserve: --kv-type must be one of f16, "),
        (["serve", "--config", "absent.yml"], "ggserve: --config absent.yml: No such file or directory"),
        (["serve", "--api-key-file", "absent"], "ggserve: --api-key-file absent: No such file or directory"),
        (["serve", "-m", "a/x.gguf", "-m", "b/x.gguf"], "ggserve: model: two files would be called 'x'"),
        (["serve", "--host", "256.1.1.1"], "ggserve: cannot listen on 256.1.1.1:8080: "),
        (["infer"], "ggserve infer: a text is required: -p TEXT, or -p - to read it from stdin"),
        (["infer", "-p", "x", "-m", "a.gguf", "-m", "b.gguf"], "ggserve: --model was given 2 times"),
        (["infer", "-p", "x", "-m", "a.gguf", "b.gguf"], "ggserve: --model was given 2 times"),
        (["serve", "a/x.gguf", "-m", "b/x.gguf"], "ggserve: model: two files would be called 'x'"),
        (["infer", "-p", "x", "--temperature", "-1"], "ggserve: temperature must lie between 0 and "),
        (["infer", "-p", "x", "--context-size", "4", "--kv-cells", "2"], "ggserve: "),
        (["info"], "ggserve info: the following arguments are required: PATH"),
        (["info", "x.gguf", "--kv-type", "f8"], "ggserve info: --kv-type must be one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_reported_in_one_line_and_status_2(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    assert status == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(message)
    assert captured.out == ""


def test_a_port_in_use_is_reported_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as accepted:
        port = str(accepted.getsockname()[1])
        line = mistakes(ggserve("serve", "--port", port, "--model", "absent.gguf"), 2)
    assert line.startswith(f"ggserve: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert "--port" in line


@pytest.mark.e2e
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("infer", "-p", "x")], ids=["serve", "infer"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "x.gguf"),
        (b"no model at all" * 100, "x.gguf"),
        (MODEL.read_bytes()[:5000], "x.gguf"),
        (MODEL.read_bytes()[:-10], "x.gguf"),
    ],
    ids=["absent", "empty", "text", "truncated head", "truncated tensors"],
)
def test_model_that_cannot_load_is_reported_in_one_line_and_status_1(command, content, message, tmp_path):
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    assert message in mistakes(ggserve(*command, "--model", str(path)), 1)


@pytest.mark.e2e
@pytest.mark.parametrize("order", [("x.gguf", "--port", "0"), ("--port", "0", "x.gguf")])
def test_a_model_may_be_named_without_its_flag(order, tmp_path):
    path = tmp_path / "x.gguf"
    arguments = [str(path) if word == "x.gguf" else word for word in order]
    assert str(path) in mistakes(ggserve("serve", *arguments), 1)


@pytest.mark.e2e
def test_missing_gpu_is_an_error():
    done = ggserve("infer", *BUNDLED, "-p", "x", "--use-gpu", "--device", "CPU")
    assert "GPU" in mistakes(done, done.returncode)
    assert done.returncode in (1, 2)


@pytest.mark.e2e
def test_debug_adds_the_traceback():
    done = ggserve("serve", "--port", "x", "--log-level", "debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ggserve: --port must be")


# --- infer


def infer(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return ggserve("infer", "-m", str(MODEL), "--temperature", "0", "--threads", "1", *arguments, **kwargs)
