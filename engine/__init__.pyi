# What `__init__.py` resolves on first use, for type checkers.

from engine.config import InferenceSessionConfig, LoraAdapter, ModelParameters, SchedulerConfig
from engine.engine import Model, load
from engine.errors import (
    ConfigError,
    ContextOverflowError,
    DeviceError,
    EngineError,
    GgmlError,
    ModelError,
    OutOfMemoryError,
    SessionClosedError,
    StorageError,
    UnsupportedModelError,
)
from engine.ggml.backend import Device, devices
from engine.scheduler.scheduler import Scheduler
from engine.session import InferenceSession
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.types import Constraint, InferenceParameters, Request, Thinking

__all__ = [
    "ConfigError",
    "Constraint",
    "ContextOverflowError",
    "Device",
    "DeviceError",
    "EngineError",
    "GgmlError",
    "InferenceParameters",
    "InferenceSession",
    "InferenceSessionConfig",
    "LoraAdapter",
    "Model",
    "ModelError",
    "ModelParameters",
    "OutOfMemoryError",
    "Request",
    "Scheduler",
    "SchedulerConfig",
    "SessionClosedError",
    "StorageError",
    "Thinking",
    "Tokenizer",
    "UnsupportedModelError",
    "devices",
    "load",
    "load_tokenizer",
]
