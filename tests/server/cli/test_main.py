"""The command as a user meets it: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from server.cli import devices
from server.cli.main import COMMANDS, main
from server.config.settings import Settings
from server.config.sources import render
from support.logging_state import restored_logging
from support.server_process import BUNDLED, COMMAND, ROOT, ggserve

MODEL = ROOT / "models" / "stories.gguf"


@pytest.fixture(autouse=True)
def _logging():
    with restored_logging():
        yield


def mistakes(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that a failed command says, without a traceback."""
    assert done.returncode == status, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_help_names_every_command_and_is_cheap():
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
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ggserve {command}" in text
    assert "examples:" in text


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ggserve serve" in captured.err


def test_version(capsys):
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
        (["infer"], "ggserve infer: give the text with -p TEXT, or -p - to read it from stdin"),
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
def test_mistakes_are_one_line_and_status_2(arguments, message, capsys):
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
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
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
def test_a_model_that_cannot_load_is_one_line_and_status_1(command, content, message, tmp_path):
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
def test_a_gpu_that_is_not_there_is_an_error():
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


def test_infer_streams_text_and_nothing_else():
    done = infer("-p", "Once upon a time", "-n", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(", there was a little girl named Lily.")
    from_stdin = infer("-p", "-", "-n", "20", input="Once upon a time\n")
    assert from_stdin.stdout == done.stdout


@pytest.mark.e2e
def test_infer_stop_stats_and_warnings():
    arguments = ["--stop", " girl", "--stats", "--batch-size", "2", "--top-k", "5"]
    done = infer("-p", "Once upon a time", "-n", "20", *arguments)
    assert done.stdout == ", there was a little\n"
    warning, load, prompt, generated = done.stderr.splitlines()
    assert "top_k" in warning  # the most likely token is taken anyway
    assert load.startswith("load ")
    assert prompt.startswith("prompt ")
    assert "tokens" in prompt
    assert generated.endswith("(n_batch 2)")


@pytest.mark.e2e
def test_infer_with_a_seed_says_the_same_again():
    arguments = ("infer", "-m", str(MODEL), "-p", "The cat", "-n", "30", "--seed", "5")
    first, second = ggserve(*arguments), ggserve(*arguments)
    assert first.stdout == second.stdout != ""


@pytest.mark.e2e
def test_infer_into_a_closed_pipe_ends_quietly():
    process = subprocess.Popen(
        [*COMMAND, "infer", *BUNDLED, "-p", "Once upon a time", "--ignore-eos"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(5)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert errors == ""


@pytest.mark.e2e
def test_infer_ends_cleanly_on_ctrl_c():
    process = subprocess.Popen(
        [
            *COMMAND,
            "infer",
            *BUNDLED,
            "-p",
            "Once upon a time",
            "--ignore-eos",
            "--stats",
            "--context-size",
            "100000",
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("\n")
    assert "generated" in errors
    assert "Traceback" not in errors


# --- devices, info, config


def test_devices():
    table = ggserve("devices")
    assert table.returncode == 0
    assert table.stdout.splitlines()[0].split()[:4] == ["NAME", "BACKEND", "TYPE", "FREE"]
    found = json.loads(ggserve("devices", "--json").stdout)
    assert [set(device) for device in found] == [
        {"name", "backend", "type", "description", "free", "total", "kernels"} for _ in found
    ]
    assert any(device["type"] == "cpu" and device["total"] > 0 for device in found)


def test_kernels_of_the_cpu_can_be_forced(monkeypatch):
    monkeypatch.setenv("GGSERVE_CPU_KERNELS", "portable")
    assert "(kernels: portable)" in ggserve("devices").stdout
    monkeypatch.setenv("GGSERVE_CPU_KERNELS", "sse9")
    for command in (("devices",), ("infer", "--model", str(MODEL), "-p", "x")):
        line = mistakes(ggserve(*command), 2)
        assert line.startswith("ggserve: GGSERVE_CPU_KERNELS=sse9: unknown; this build has ")


def test_the_table_of_devices_is_aligned():
    one = {
        "name": "CUDA0",
        "backend": "CUDA",
        "type": "gpu",
        "description": "x",
        "free": 2**30,
        "total": 2**31,
        "kernels": None,
    }
    two = {
        "name": "CPU",
        "backend": "CPU",
        "type": "cpu",
        "description": "y",
        "free": 0,
        "total": 2**36,
        "kernels": "avx2",
    }
    assert devices.table([one, two]).splitlines() == [
        "NAME   BACKEND  TYPE  FREE     TOTAL     DESCRIPTION",
        "CUDA0  CUDA     gpu   1.0 GiB  2.0 GiB   x",
        "CPU    CPU      cpu   0.0 GiB  64.0 GiB  y (kernels: avx2)",
    ]


def test_info():
    done = ggserve("info", str(MODEL))
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama" in done.stdout
    found = json.loads(ggserve("info", str(MODEL), "--json", "--tensors").stdout)
    assert "token_embd.weight" in json.dumps(found)
    assert "x.gguf" in mistakes(ggserve("info", "/nonexistent/x.gguf"), 1)


def test_config_prints_what_is_in_force(tmp_path, monkeypatch):
    monkeypatch.setenv("GGSERVE_PARALLEL", "3")
    file = tmp_path / "c.yml"
    file.write_text("threads: 2\nport: 7")
    done = ggserve("config", "--config", str(file), "--port", "9", "--api-key", "hidden")
    expected = render(Settings(parallel=3, threads=2, port=9, api_key=["hidden"]))
    assert done.stdout == expected
    assert "hidden" not in done.stdout
