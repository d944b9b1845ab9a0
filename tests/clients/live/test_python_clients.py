"""Python libraries: a chat, a stream, structured output and tools, as each of them asks for these."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from clients.live.questions import MODEL, QUESTION, Town, get_weather
from support.client_environments import LIMIT_S

# --- LangChain


def langchain(url: str, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=MODEL, **options)


def test_langchain_answers_whole_and_streamed(url: str) -> None:
    whole = langchain(url).invoke(QUESTION)
    assert whole.content
    assert whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in langchain(url).stream(QUESTION))


def test_langchain_answers_through_responses(url: str) -> None:
    assert langchain(url, use_responses_api=True).invoke(QUESTION).text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structured_output_is_an_object(url: str, method: str) -> None:
    actual = langchain(url).with_structured_output(Town, method=method).invoke(QUESTION)
    assert isinstance(actual, Town)


def test_langchain_tools_are_called(url: str) -> None:
    model = langchain(url).bind_tools([get_weather], tool_choice="any")
    [call, *_] = model.invoke("How is the weather in Paris?").tool_calls
    assert call["name"] == "get_weather"
    assert call["args"]["town"] in ("Paris", "Rome")


# --- Pydantic AI


def pydantic_model(url: str) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))


def test_pydantic_ai_returns_answers_and_objects(url: str) -> None:
    from pydantic_ai import Agent, NativeOutput

    assert Agent(pydantic_model(url)).run_sync(QUESTION).output
    actual = Agent(pydantic_model(url), output_type=NativeOutput(Town)).run_sync(QUESTION).output
    assert isinstance(actual, Town)
    assert isinstance(Agent(pydantic_model(url), output_type=Town).run_sync(QUESTION).output, Town)


# --- OpenAI Agents SDK


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_openai_agents_run_a_tool(url: str, kind: str) -> None:
    from agents import (
        Agent,
        ModelSettings,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        RunConfig,
        Runner,
        function_tool,
    )
    from openai import AsyncOpenAI

    called = []

    def weather(town: Literal["Paris", "Rome"]) -> str:
        """The weather in a town."""
        called.append(town)
        return f"It is sunny in {town}."

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    models = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}
    agent = Agent(
        name="guide",
        instructions="Be brief.",
        model=models[kind](MODEL, client),
        tools=[function_tool(weather)],
        model_settings=ModelSettings(tool_choice="required"),
    )
    config = RunConfig(tracing_disabled=True)
    result = asyncio.run(Runner.run(agent, "How is the weather in Paris?", run_config=config))
    assert called
    assert isinstance(result.final_output, str)


# --- llm


def test_llm_answers_on_the_command_line(url: str, tmp_path: Path) -> None:
    config = {"model_id": MODEL, "model_name": MODEL, "api_base": f"{url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([config]))
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
    for option in ((), ("--no-stream",)):
        command = [sys.executable, "-m", "llm", "-m", MODEL, "--no-log", *option, QUESTION]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.stdout, done.stderr


def test_llm_answers_through_ollamas_api(url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OLLAMA_HOST": url}
    for name in (MODEL, f"{MODEL}:latest"):
        command = [sys.executable, "-m", "llm", "-m", f"ollama/{name}", "--no-log", QUESTION]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.stdout, done.stderr


# --- LiteLLM


def test_litellm_answers_through_both_apis(url: str) -> None:
    import litellm

    messages = [{"role": "user", "content": QUESTION}]
    openai = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none", "messages": messages}
    assert litellm.completion(**openai).choices[0].message.content
    parts = [part.choices[0].delta.content or "" for part in litellm.completion(**openai, stream=True)]
    assert "".join(parts)
    actual = litellm.completion(**openai, response_format=Town).choices[0].message.content
    assert Town.model_validate_json(actual)
    anthropic = {**openai, "model": f"anthropic/{MODEL}", "api_base": url, "max_tokens": 100}
    assert litellm.completion(**anthropic).choices[0].message.content
    vllm = {**openai, "model": f"hosted_vllm/{MODEL}"}
    choice = litellm.completion(**vllm, extra_body={"guided_choice": ["Lyon", "Nice"]})
    assert choice.choices[0].message.content in ("Lyon", "Nice")


# --- Instructor


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_instructor_returns_objects(url: str, mode: str) -> None:
    import instructor
    from openai import OpenAI

    client = instructor.from_openai(
        OpenAI(base_url=f"{url}/v1", api_key="none"), mode=getattr(instructor.Mode, mode)
    )
    messages = [{"role": "user", "content": QUESTION}]
    actual = client.chat.completions.create(model=MODEL, messages=messages, response_model=Town)
    assert isinstance(actual, Town)


# --- Outlines


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_outlines_constraints_are_enforced(url: str, kind: str) -> None:
    import outlines
    from openai import OpenAI
    from outlines.types import CFG, Regex, date

    makers = {"vllm": outlines.from_vllm, "sglang": outlines.from_sglang}
    model = makers[kind](OpenAI(base_url=f"{url}/v1", api_key="none"), MODEL)
    assert model(QUESTION, max_tokens=10)
    actual = Town.model_validate_json("".join(model.stream(QUESTION, Town)))
    assert isinstance(actual, Town)
    assert model(QUESTION, Literal["Lyon", "Nice"]) in ("Lyon", "Nice")
    assert re.fullmatch("[0-9]{3}-[a-f]{4}", model(QUESTION, Regex(r"\d{3}-[a-f]{4}")))
    assert datetime.date.fromisoformat(model("When was it?", date))
    sums = """start: NUMBER "+" NUMBER\nNUMBER: /[0-9]{1,3}/\n"""
    assert re.fullmatch(r"[0-9]{1,3}\+[0-9]{1,3}", model("Add two numbers.", CFG(sums)))


def test_outlines_returns_objects_through_the_other_apis(url: str) -> None:
    import ollama
    import outlines
    from openai import OpenAI

    chat = outlines.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"), MODEL)
    assert Town.model_validate_json(chat(QUESTION, Town))
    assert Town.model_validate_json(outlines.from_ollama(ollama.Client(host=url), MODEL)(QUESTION, Town))


# --- Semantic Kernel


def test_semantic_kernel_returns_answers_and_objects_and_calls_functions(url: str) -> None:
    from openai import AsyncOpenAI
    from semantic_kernel import Kernel
    from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
    from semantic_kernel.connectors.ai.open_ai import (
        OpenAIChatCompletion,
    )
    from semantic_kernel.connectors.ai.open_ai import (
        OpenAIChatPromptExecutionSettings as Settings,
    )
    from semantic_kernel.contents import ChatHistory
    from semantic_kernel.functions import kernel_function

    called = []

    class Weather:
        @kernel_function(description="The weather in a town.")
        def get_weather(self, town: str) -> str:
            called.append(town)
            return f"It is sunny in {town}."

    def history(question: str) -> ChatHistory:
        messages = ChatHistory(system_message="Be brief.")
        messages.add_user_message(question)
        return messages

    async def talk() -> None:
        service = OpenAIChatCompletion(MODEL, async_client=AsyncOpenAI(base_url=f"{url}/v1", api_key="none"))
        kernel = Kernel()
        kernel.add_service(service)
        kernel.add_plugin(Weather(), "weather")
        plain = Settings(max_tokens=20)
        assert str(await service.get_chat_message_content(history(QUESTION), plain))
        parts = service.get_streaming_chat_message_content(history(QUESTION), plain)
        assert "".join([str(part) async for part in parts])
        typed = await service.get_chat_message_content(history(QUESTION), Settings(response_format=Town))
        assert Town.model_validate_json(str(typed))
        required = Settings(max_tokens=60, function_choice_behavior=FunctionChoiceBehavior.Required())
        conversation = history("How is the weather in Paris?")
        assert str(await service.get_chat_message_content(conversation, required, kernel=kernel))

    asyncio.run(talk())
    assert called


def test_semantic_kernel_answers_through_ollamas_api(url: str) -> None:
    from semantic_kernel.connectors.ai.ollama import OllamaChatCompletion, OllamaChatPromptExecutionSettings
    from semantic_kernel.contents import ChatHistory

    messages = ChatHistory()
    messages.add_user_message(QUESTION)
    service = OllamaChatCompletion(ai_model_id=MODEL, host=url)
    settings = OllamaChatPromptExecutionSettings(options={"num_predict": 10})
    assert str(asyncio.run(service.get_chat_message_content(messages, settings)))


# --- Haystack, DSPy


def test_haystack_answers(url: str) -> None:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    generator = OpenAIChatGenerator(api_base_url=f"{url}/v1", model=MODEL, api_key=Secret.from_token("none"))
    [reply] = generator.run([ChatMessage.from_user(QUESTION)])["replies"]
    assert reply.text


def test_dspy_answers(url: str) -> None:
    import dspy

    model = dspy.LM(f"openai/{MODEL}", api_base=f"{url}/v1", api_key="none", cache=False)
    with dspy.context(lm=model):
        assert model(QUESTION)[0]


# --- the official clients' helpers


def test_anthropic_tool_runner_runs_a_tool_and_answers(url: str) -> None:
    from anthropic import Anthropic, beta_tool

    called = []

    @beta_tool
    def weather(town: Literal["Paris", "Rome"]) -> str:
        """The weather in a town."""
        called.append(town)
        return f"It is sunny in {town}."

    runner = Anthropic(base_url=url, api_key="none").beta.messages.tool_runner(
        model=MODEL,
        max_tokens=150,
        tools=[weather],
        tool_choice={"type": "tool", "name": "weather"},
        messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        max_iterations=2,
    )
    messages = list(runner)
    assert called
    assert messages[0].stop_reason == "tool_use"
    assert len(messages) == 2


def test_openai_parses_objects_through_both_apis(url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    messages: Any = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Town)
    assert isinstance(chat.choices[0].message.parsed, Town)
    response = client.responses.parse(model=MODEL, input=QUESTION, text_format=Town)
    assert isinstance(response.output_parsed, Town)
