"""All errors that the engine raises on purpose.

EngineError
├── ModelError                 the file is corrupt, hostile, or not supported (also a ValueError)
│   └── UnsupportedModelError  a valid file of an architecture or variant that is not supported
├── ConfigError                parameters out of range or contradictory (also a ValueError)
├── DeviceError                a device that is absent, lost, or refused an operation
│   └── OutOfMemoryError       names the device, the bytes needed and the bytes free (also a MemoryError)
├── ContextOverflowError       a prompt longer than the session may become (also a ValueError)
├── StorageError               a file that cannot be written
├── SessionClosedError         a session, or its model, was closed
└── GgmlError                  a ggml call failed; carries ggml's last log line
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors of the engine. The message is one line that says what to do."""


class ModelError(EngineError, ValueError):
    """The model file cannot be used: corrupt, truncated, hostile or inconsistent."""


class UnsupportedModelError(ModelError):
    """A valid file whose architecture, or a value in it, is not supported."""


class ConfigError(EngineError, ValueError):
    """Parameters that are out of range or contradict each other."""


class DeviceError(EngineError):
    """A device is missing, was lost, or cannot run an operation."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has too little memory. The message names the device, the bytes needed and the bytes free."""

    def __init__(self, message: str, *, device: str = "", needed: int = 0, free: int = 0) -> None:
        super().__init__(message)
        self.device, self.needed, self.free = device, needed, free


class ContextOverflowError(EngineError, ValueError):
    """The prompt does not fit the context.

    at_least: `n_prompt` is a lower bound. n_ctx_train: the context that the model was trained for, if known.
    """

    def __init__(
        self, n_prompt: int, n_ctx: int, *, at_least: bool = False, n_ctx_train: int | None = None
    ) -> None:
        advice = "shorten the prompt"
        if n_ctx_train is None:
            advice += " or raise --context-size"
        elif n_ctx < n_ctx_train:
            advice += f" or raise --context-size (the model was trained for {n_ctx_train})"
        super().__init__(
            f"the prompt has {'at least ' if at_least else ''}{n_prompt} tokens, which exceeds the available "
            f"context size of {n_ctx} tokens (including at least one to generate); {advice}"
        )
        self.n_prompt, self.n_ctx = n_prompt, n_ctx


class StorageError(EngineError):
    """A file cannot be written: no space, no permission."""


class SessionClosedError(EngineError):
    """The session or its model was closed before the call."""


class GgmlError(EngineError):
    """A ggml call failed."""
