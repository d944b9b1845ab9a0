"""lm-eval's `local-completions`: log-likelihoods by token ids, with the server's own tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.client_environments import LIMIT_S

QUESTIONS = [
    {"question": "What is the capital of France?", "choices": ["Paris", "London", "Rome"], "answer": 0},
    {"question": "What colour is the sky on a clear day?", "choices": ["green", "blue"], "answer": 1},
    {"question": "How many legs does a dog have?", "choices": ["two", "six", "four"], "answer": 2},
    {"question": "Which animal says meow?", "choices": ["a cow", "a dog", "a cat"], "answer": 2},
    {"question": "What do bees make?", "choices": ["honey", "milk", "bread"], "answer": 0},
]
PROMPT = "Question: {{question}}\nAnswer:"


def task(folder: Path, name: str, **fields: Any) -> None:
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}}}
    (folder / f"{name}.yaml").write_text(json.dumps({"task": name, "test_split": "test", **data, **fields}))


def samples(folder: Path, name: str) -> list[dict[str, Any]]:
    [path] = folder.glob(f"out/*/samples_{name}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def results(url: str, tmp_path: Path) -> Path:
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    choices = {"doc_to_text": PROMPT, "doc_to_target": "answer", "doc_to_choice": "{{choices}}"}
    task(tmp_path, "choices", output_type="multiple_choice", metric_list=[{"metric": "acc"}], **choices)
    texts = {"doc_to_text": "", "doc_to_target": "{{question}}"}
    perplexity = [{"metric": "word_perplexity"}]
    task(tmp_path, "rolling", output_type="loglikelihood_rolling", metric_list=perplexity, **texts)
    texts = {"doc_to_text": PROMPT, "doc_to_target": "{{choices[answer]}}"}
    generate = {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 16}}
    matches = [{"metric": "exact_match"}]
    task(tmp_path, "generate", output_type="generate_until", metric_list=matches, **texts, **generate)
    model = f"base_url={url}/v1/completions,model=smollm2,tokenizer_backend=remote,max_length=2048"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", model]
    command += ["--include_path", str(tmp_path), "--tasks", "choices,rolling,generate", "--batch_size", "4"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    environment = {**os.environ, **offline}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert run.returncode == 0, run.stderr[-2000:]
    return tmp_path


def test_lm_eval_reads_the_log_likelihoods_that_the_server_computes(url: str, results: Path) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:

        def tokens(text: str) -> list[int]:
            body = {"prompt": text, "add_special_tokens": False}
            return http.post("/tokenize", json=body).json()["tokens"]

        def score(ids: list[int], first: int) -> float:
            body = {"prompt": ids, "prompt_logprobs": 0, "max_tokens": 0}
            [choice] = http.post("/v1/completions", json=body).json()["choices"]
            return sum(next(iter(entry.values()))["logprob"] for entry in choice["prompt_logprobs"][first:])

        beginning = tokens(http.get("/tokenizer_info").json()["bos_token"])
        for sample in samples(results, "choices"):
            for arguments, [[value, _]] in zip(sample["arguments"].values(), sample["resps"], strict=True):
                context, continuation = arguments["arg_0"], arguments["arg_1"]
                expected = score(tokens(context + continuation), len(tokens(context)))
                assert float(value) == pytest.approx(expected, abs=0.02)
        for sample in samples(results, "rolling"):
            # After some of these texts the model ends its own, which must not cost the text its last token.
            [[value]] = sample["resps"]
            ids = tokens(sample["doc"]["question"])
            assert float(value) == pytest.approx(score(beginning + ids, 1), abs=0.02)
    assert sum(sample["acc"] for sample in samples(results, "choices")) >= 3
    assert any(sample["resps"][0][0] for sample in samples(results, "generate"))
