"""A model's chat template, which renders messages to prompt text in a process of limited time and memory."""

from __future__ import annotations

import json
import pickle
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from server.chat.template.answer_kinds import RENDERED
from server.sandbox.process import ChildDied, ChildTimeout, SandboxProcess, module_command

CPU_S = 2.0  # of processor time, for one rendering
TIMEOUT_S = 15.0  # for one rendering, on a machine that has other work to do
MAX_SOURCE = 1 << 18
_RESERVED = frozenset(
    [
        "messages",
        "tools",
        "add_generation_prompt",
        "raise_exception",
        "strftime_now",
        "range",
        "dict",
        "namespace",
    ]
)
_TOOLS = re.compile(r"\btools\b")


class TemplateFailed(Exception):
    """The template cannot be used, or not with these messages. The text is for the client."""


class TemplateLimitExceeded(TemplateFailed):
    """The template took too much time or memory."""


class TemplateSandbox:
    """Renders templates, one at a time. Thread-safe. The process is started by the first rendering.

    A template that takes too much time or memory ends the process; the next rendering starts another one.
    """

    def __init__(self, cpu_s: float = CPU_S) -> None:
        self._cpu_s = cpu_s
        self._process = SandboxProcess([*module_command("server.chat.template.child"), str(cpu_s)])
        self._lock = threading.Lock()

    def compile(self, source: str) -> None:
        """Raises TemplateFailed if the source is not a valid template."""
        self._request(source, None)

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The rendered text. Raises TemplateFailed; RecursionError for too deeply nested variables."""
        return self._request(source, dict(variables))

    def _request(self, source: str, variables: dict[str, Any] | None) -> str:
        message = pickle.dumps((source, variables), pickle.HIGHEST_PROTOCOL)
        try:
            with self._lock:
                answer = self._process.request(message, TIMEOUT_S)
        except ChildTimeout:
            raise TemplateLimitExceeded("the model's chat template takes too long") from None
        except ChildDied as death:
            reason = (
                f"takes more than {self._cpu_s:g} s of processor time"
                if death.cpu_limit
                else "takes too much memory, or crashes its interpreter"
            )
            raise TemplateLimitExceeded(f"the model's chat template {reason}") from None
        text = answer[1:].decode("utf-8", "surrogatepass")
        if answer[:1] != RENDERED:
            raise TemplateFailed(text)
        return text


class ChatTemplate:
    """A template that is known to compile. Thread-safe.

    special_tokens: their texts, by the names that templates use: `bos_token`, `eos_token`, `unk_token`, …
    """

    def __init__(self, source: str, sandbox: TemplateSandbox, special_tokens: Mapping[str, str]) -> None:
        """Raises TemplateFailed."""
        if len(source) > MAX_SOURCE:
            raise TemplateFailed(f"the model's chat template has more than {MAX_SOURCE} characters")
        sandbox.compile(source)
        self.source = source
        self._sandbox = sandbox
        self._special_tokens = {"bos_token": "", "eos_token": "", **special_tokens}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Render the prompt. extra: further variables. Raises TemplateFailed. Blocks, so do not call it in
        the event loop.
        """
        for name in extra or ():
            if name in _RESERVED or name in self._special_tokens or not name.isidentifier():
                raise TemplateFailed(f"chat_template_kwargs: {name[:64]!r} cannot be set")
        variables = {
            "documents": None,
            **_expected_variables(self.source, tools),
            **(extra or {}),
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._sandbox.render(self.source, variables)


def _expected_variables(source: str, tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Variables that templates expect besides the messages, as llama-server sets them."""
    now = datetime.now()
    variables: dict[str, Any] = {"date_string": f"{now:%d %b %Y}", "datetime": f"{now:%b %d %Y}"}
    if "functions" in source and not _TOOLS.search(source):  # another name for the tools
        variables["functions"] = json.dumps(tools or [], indent=4, ensure_ascii=False)
    if "xml_tools" in source and tools:
        variables["xml_tools"] = tools
    return variables
