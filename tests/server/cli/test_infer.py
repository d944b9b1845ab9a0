"""One completion in the terminal: what is printed where, and how it ends."""

from __future__ import annotations

import signal
import subprocess

import pytest

from support.server_process import BUNDLED, COMMAND, ROOT, ggserve

MODEL = ROOT / "models" / "stories.gguf"


def infer(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return ggserve("infer", "-m", str(MODEL), "--temperature", "0", "--threads", "1", *arguments, **kwargs)


@pytest.mark.e2e
def test_infer_streams_only_text():
    done = infer("-p", "Once upon a time", "-n", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(", there was a little girl named Lily.")
    from_stdin = infer("-p", "-", "-n", "20", input="Once upon a time\n")
    assert from_stdin.stdout == done.stdout


@pytest.mark.e2e
def test_infer_stops_at_a_string_and_prints_stats_and_warnings():
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
def test_infer_with_a_context_shift_continues_when_the_context_is_full():
    arguments = ["-p", "Once upon a time", "-n", "60", "--context-size", "32", "--ignore-eos", "--stats"]
    ended, shifted = infer(*arguments), infer(*arguments, "--context-shift", "--n-keep", "5")
    assert (ended.returncode, shifted.returncode) == (0, 0)
    assert shifted.stdout.startswith(ended.stdout.rstrip("\n"))
    assert " 60 tokens" in shifted.stderr.splitlines()[-1]
    assert " 60 tokens" not in ended.stderr
    assert (
        "--n-keep has no effect without --context-shift"
        in infer("-p", "Once", "-n", "1", "--n-keep", "5").stderr
    )


@pytest.mark.e2e
def test_infer_without_a_sampling_flag_takes_the_configured_default(monkeypatch: pytest.MonkeyPatch):
    expected = infer("-p", "Once upon a time", "-n", "3")
    monkeypatch.setenv("GGSERVE_DEFAULT", "max_tokens=3")
    assert infer("-p", "Once upon a time").stdout == expected.stdout
    longer = infer("-p", "Once upon a time", "-n", "6")
    assert longer.stdout.startswith(expected.stdout.rstrip("\n"))
    assert len(longer.stdout) > len(expected.stdout)


@pytest.mark.e2e
def test_infer_with_a_seed_repeats_its_text():
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
