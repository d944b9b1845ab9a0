"""Questions that guidance asks a server, in its own environment: `guidance_client.py URL`.

Prints a line of JSON for each: how the server is addressed, what was asked, and the captured text.
"""

import json
import sys
from typing import Any, Literal

from guidance import assistant, gen, select, user
from guidance import json as json_of
from guidance.models import OpenAI
from guidance.models.experimental import SglangModel, VLLMModel
from pydantic import BaseModel, ConfigDict, Field


class Town(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a grammar takes a schema as the standard has it

    name: str = Field(max_length=12)
    country: Literal["Spain", "Italy"]
    people: int = Field(ge=10, le=99)


QUESTIONS = {
    "text": lambda: gen("x", max_tokens=20),
    "json": lambda: json_of("x", schema=Town, max_tokens=80),
    "regex": lambda: gen("x", regex=r"\d{3}-[a-f]{4}"),
    "choice": lambda: select(["Lyon", "Nice"], name="x"),
    "grammar": lambda: "It is " + select(["Lyon", "Nice"], name="x") + ", " + gen("y", regex="[a-z]{3}"),
}
# guidance itself asks only servers of its first two kinds for more than JSON schemas.
MODELS: dict[str, Any] = {"vllm": VLLMModel, "sglang": SglangModel, "openai": OpenAI}


def ask(kind: str, question: str) -> str:
    model = MODELS[kind]("smollm2", base_url=f"{sys.argv[1]}/v1", api_key="none", echo=False)
    with user():
        model += "What is the capital of France?"
    with assistant():
        model += QUESTIONS[question]()
    if question == "grammar":
        return f"{model['x']} {model['y']}"
    return str(model["x"])


for kind in MODELS:
    for question in ("text", "json") if kind == "openai" else QUESTIONS:
        print(json.dumps({"kind": kind, "question": question, "value": ask(kind, question)}), flush=True)
