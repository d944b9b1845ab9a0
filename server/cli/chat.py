"""`ggserve chat`: a conversation in the terminal, with a model in this process or on a server."""

from __future__ import annotations

import argparse
import sys

from engine.errors import ConfigError
from server.cli.command import (
    Parser,
    add_model_argument,
    configure_quiet_logging,
    requested_options,
    single_model,
)
from server.cli.generation_options import (
    DESCRIPTIONS,
    MORE_OPTIONS,
    add_sampling_options,
    inference_parameters,
    load_model,
    requested_sampling,
    session_config,
)
from server.config import sources
from server.config.settings import Settings
from server.keys.key_file import read_key_file
from server.terminal.backend import AnswerFailed, Backend
from server.terminal.chat import Chat
from server.terminal.screen import open_screen

EXAMPLES = """\
  ggserve chat                                        SmolLM2-135M-Instruct
  ggserve chat model.gguf --system "Be brief."        your own model, with a system prompt
  ggserve chat --load talk                            continue what `/save talk` wrote
  ggserve chat --url http://127.0.0.1:8080            use a running server
  git diff | ggserve chat --system "Review this."     one question from a pipe, its answer to stdout

In the chat: /help lists the commands (/system, /save, /load, /clear, /exit) and keys. Ctrl-C stops an
answer, Ctrl-D exits."""

KEY_OPTIONS = {
    "api_key": "with --url: the key to send; --api-key-file is safer: other users can see command lines",
    "api_key_file": "with --url: file with the key to send",
}


def _parser() -> Parser:
    description = (
        "Chat with a model in the terminal, through its chat template. If stdin is not a terminal, it is\n"
        "read as one message and answered."
    )
    parser = Parser("ggserve chat", description, EXAMPLES)
    add_model_argument(parser)
    parser.add_argument("--system", metavar="TEXT", help="system prompt: how the model should behave")
    parser.add_argument("--load", metavar="FILE", help="continue a conversation that /save wrote")
    parser.add_argument(
        "--url",
        metavar="URL",
        help="use this server (OpenAI's chat API) instead of loading a model; --model: one of its models",
    )
    parser.add_argument("--no-markdown", action="store_true", help="show answers as plain text")
    add_sampling_options(parser)
    more = MORE_OPTIONS | KEY_OPTIONS
    sources.add_options(parser, serve=False, more=more, descriptions=DESCRIPTIONS | more)
    return parser


def run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    settings = sources.load(requested_options(args), args.config)
    configure_quiet_logging(settings)
    text = None if sys.stdin.isatty() else sys.stdin.read().strip()
    if text == "":
        raise ConfigError("stdin is empty; if it is not a terminal, the message is read from it")
    backend = _remote(settings, args) if args.url else open_model(settings, args, "chat")
    try:
        return converse(backend, text, args)
    finally:
        backend.close()


def converse(backend: Backend, text: str | None, args: argparse.Namespace) -> int:
    """Answer `text` once, or converse on the terminal if it is None. Returns the exit status."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    chat = Chat(backend, open_screen(markdown=not args.no_markdown), None if args.load else args.system)
    if args.load:
        chat.load(args.load)
        if args.system is not None:
            chat.conversation.system = args.system
    if text is None:
        from server.models.cache import cache_dir
        from server.terminal.editor import Editor

        return chat.run(Editor(cache_dir() / "chat_history").read)
    return answer_once(chat, text)


def answer_with_model(settings: Settings, text: str, args: argparse.Namespace) -> int:
    """`infer --chat`: answer a text with the settings' one model. Returns the exit status."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    backend = open_model(settings, args, "infer")
    try:
        return answer_once(Chat(backend, open_screen(markdown=True)), text)
    finally:
        backend.close()


def answer_once(chat: Chat, text: str) -> int:
    """Print the answer to one text. Exit status 130 after Ctrl-C, 1 if there is no answer."""
    try:
        return 0 if chat.ask(text) else 130
    except AnswerFailed as error:
        sys.stderr.write(f"ggserve: {error}\n")
        return 1


def open_model(settings: Settings, args: argparse.Namespace, command: str) -> Backend:
    """Load the settings' one model. args: with the sampling parameters."""
    name, path = single_model(settings, command)
    from server.chat.request import ReasoningOptions
    from server.terminal.local import ChatOptions, LocalModel

    template = settings.chat_template_text()
    model = load_model(name, path, settings)
    try:
        budget = None if settings.reasoning_budget < 0 else settings.reasoning_budget
        enabled = None if settings.reasoning == "auto" else settings.reasoning == "on"
        options = ChatOptions(
            params=inference_parameters(model, settings, requested_sampling(args)),
            session=session_config(model, settings, args.n_keep),
            template=template,
            reasoning=ReasoningOptions(budget=budget, enabled=enabled),
            extra=settings.chat_template_kwargs,
        )
        return LocalModel(model, name, options)
    except BaseException:
        model.close()
        raise


def _remote(settings: Settings, args: argparse.Namespace) -> Backend:
    from server.terminal.remote import RemoteServer

    if len(settings.model) > 1:
        raise ConfigError(f"--model was given {len(settings.model)} times; chat takes one")
    keys = [key.get_secret_value() for key in settings.api_key] or _first_plain_key(settings)
    fields = {name: value for name, value in requested_sampling(args).items() if value is not None}
    if args.n_keep:
        fields["n_keep"] = args.n_keep
    if settings.seed is not None:
        fields["seed"] = settings.seed
    model = settings.model[0] if settings.model else ""
    return RemoteServer(args.url, model, keys[0] if keys else None, fields)


def _first_plain_key(settings: Settings) -> list[str]:
    """The first plain-text key of --api-key-file. Raises ConfigError if the file only has hashes."""
    if settings.api_key_file is None:
        return []
    lines = read_key_file(settings.api_key_file.expanduser())
    keys = [line.secret for line in lines if line.secret is not None]
    if not keys:
        raise ConfigError(f"--api-key-file {settings.api_key_file}: has only hashes; chat needs a key")
    return keys
