"""Rendering of chat templates in a process whose time and memory the operating system limits."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from typing import Any

from server.chat.template.child import RENDERED
from server.sandbox.process import ChildDied, ChildTimeout, SandboxProcess, module_command

CPU_S = 2.0  # of processor time, for one rendering
TIMEOUT_S = 15.0  # for one rendering, on a machine that has other work to do


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
        """The rendered text. Raises TemplateFailed; RecursionError for variables that are nested too deeply.
        """
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
