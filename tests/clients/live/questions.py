"""What the libraries are asked, here and in the scripts of environments of their own."""

from typing import Literal

from pydantic import BaseModel

MODEL = "smollm2"
QUESTION = "What is the capital of France?"


class Town(BaseModel):
    name: str
    country: Literal["France", "Spain"]


def get_weather(town: Literal["Paris", "Rome"]) -> str:
    """The weather in a town."""
    return f"It is sunny in {town}."
