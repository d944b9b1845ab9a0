"""GGUF files, treated as untrusted: every count, length, type and offset is checked before use.

`GGUFFile.open(path)` checks the container, `validate_model(gguf)` and `validate_tokenizer(gguf)` what it says
about the model. Any error is a one-line `ModelError` that names the file, the key and the reason. Plain
Python: the server, `ggserve info` and the offload plan use it without the compiled extension.
"""

from engine.gguf.reader import GGUFFile
from engine.gguf.report import looks_like, printable
from engine.gguf.split import model_name
from engine.gguf.types import GGMLType, TensorInfo, Value, ValueType
from engine.gguf.validate import validate_model, validate_tokenizer

__all__ = [
    "GGMLType",
    "GGUFFile",
    "TensorInfo",
    "Value",
    "ValueType",
    "looks_like",
    "model_name",
    "printable",
    "validate_model",
    "validate_tokenizer",
]
