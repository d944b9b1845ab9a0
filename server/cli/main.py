"""`ggserve`: finds the command, runs it, and turns errors into one line and an exit status.

0: fine, 1: it failed while running, 2: bad usage or configuration, 130: interrupted by Ctrl-C.
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

COMMANDS = {
    "serve": "serve models over HTTP",
    "infer": "stream one completion to the terminal",
    "devices": "list the devices that could compute",
    "convert": "make a GGUF file of a Hugging Face model",
    "quantize": "write a smaller file of a model",
    "perplexity": "measure how well a model predicts a text",
    "bench": "measure speed by batch size",
    "info": "show what a model file holds",
    "rpc-worker": "lend this machine's devices to another one",
    "config": "print the effective options as a commented YAML file",
}
HELP = """\
usage: ggserve COMMAND [options]     (ggserve COMMAND --help for more)

Streams completions from GGUF models.

{commands}

examples:
  ggserve serve                                  the bundled model on http://127.0.0.1:8080
  ggserve serve --model model.gguf --port 9000   yours
  ggserve infer -p "Once upon a time" -n 100     no server
  ggserve info model.gguf                        what is in the file
  ggserve config > ggserve.yml                   a file to edit, for --config

Options may also stand in the environment (GGSERVE_PORT=9000) or in a YAML file (--config FILE).
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
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
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
        # Whoever read us (head, less) has enough. Python would complain when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}", 1, arguments)
    except EngineError as error:
        return fail(str(error), 1, arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--log-level debug shows where)"
        return fail(text, 1, arguments)


def fail(message: str, status: int, arguments: Sequence[str] = ()) -> int:
    """Say on one line why; with --log-level debug also where."""
    asked = os.environ.get("GGSERVE_LOG_LEVEL", "")
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if word.startswith("--log-level"):
            asked = word.partition("=")[2] or following
    if asked == "debug" and sys.exc_info()[0] is not None:
        traceback.print_exc()
    text = " ".join(message.split("\n"))
    sys.stderr.write(f"ggserve: {text}\n")
    return status


def version() -> str:
    """Of the installed distribution."""
    from importlib import metadata

    try:
        return metadata.version("ggserve")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
