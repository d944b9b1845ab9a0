"""The `ggserve` command: runs a subcommand and turns errors into one line on stderr and an exit status.

0: success, 1: failure while running, 2: usage or configuration error, 130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from engine.errors import ConfigError, EngineError
from server.models.errors import DownloadError
from server.version import version

COMMANDS = {
    "serve": "serve models over HTTP (OpenAI, Anthropic, Ollama and llama-server APIs)",
    "pull": "download a model from the Hugging Face Hub",
    "list": "list the models on this machine",
    "rm": "remove downloaded models",
    "chat": "chat with a model in the terminal",
    "infer": "continue a text, or answer it, in the terminal",
    "devices": "list the devices that models can run on",
    "convert": "convert a Hugging Face model to a GGUF file",
    "quantize": "quantize a GGUF file to a smaller type",
    "perplexity": "measure how well a model predicts a text",
    "bench": "measure prefill and decode speed",
    "info": "show the contents of a model file",
    "keys": "generate API keys and check a key file",
    "rpc-worker": "serve this machine's devices to another machine",
    "ray": "serve replicas of a model on a Ray cluster",
    "config": "print all options as a commented YAML file",
}
HELP = """\
usage: ggserve COMMAND [options]

An inference server for GGUF models.

commands (see ggserve COMMAND --help):
{commands}

examples:
  ggserve serve                                  SmolLM2-135M-Instruct on http://127.0.0.1:8080
  ggserve serve model.gguf --port 9000           your own model
  ggserve pull Qwen/Qwen3-8B-GGUF                a model from the Hugging Face Hub
  ggserve chat                                   a conversation in the terminal, without a server
  ggserve infer -p "Once upon a time" -n 100     continue a text
  ggserve info model.gguf                        architecture, sizes, memory estimate
  ggserve config > ggserve.yml                   a configuration file to edit, for --config

Options can also be set in the environment (GGSERVE_PORT=9000) or in a YAML file (--config FILE).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The `ggserve` command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:<11}{text}" for name, text in COMMANDS.items())
        (sys.stdout if words else sys.stderr).write(HELP.format(commands=commands))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"ggserve {version()}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; the commands are {', '.join(COMMANDS)}"
        return fail(f"unknown command {words[0]!r}{hint}", 2)
    return _run(words[0], words[1:])


def _run(command: str, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(f"server.cli.{command.replace('-', '_')}")
        status: int = module.run(arguments)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        return fail(str(error), 2, arguments)
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; without this Python complains when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}", 1, arguments)
    except (EngineError, DownloadError) as error:
        return fail(str(error), 1, arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--log-level debug shows the traceback)"
        return fail(text, 1, arguments)


def fail(message: str, status: int, arguments: Sequence[str] = ()) -> int:
    """Write the error as one line to stderr, with a traceback at --log-level debug. Returns `status`."""
    level = os.environ.get("GGSERVE_LOG_LEVEL", "")
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if word.startswith("--log-level"):
            level = word.partition("=")[2] or following
    if level == "debug" and sys.exc_info()[0] is not None:
        traceback.print_exc()
    text = " ".join(message.split("\n"))
    sys.stderr.write(f"ggserve: {text}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
