"""A backend with a model in this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from engine.config import InferenceSessionConfig
from engine.engine import Model
from engine.errors import ConfigError, EngineError
from engine.session import InferenceSession
from engine.tokenizer.detokenizer import Detokenizer
from engine.types import InferenceParameters
from server.chat.chat_format import load_chat_formats
from server.chat.messages import InvalidMessage
from server.chat.output import OutputDelta
from server.chat.prompt import AnswerParser, Prompt, render_prompt
from server.chat.reasoning import reasoning_block
from server.chat.request import ChatInput, ReasoningOptions
from server.chat.template.render import TemplateFailed
from server.chat.template.special_tokens import special_tokens_of
from server.terminal.backend import AnswerFailed, Message, Piece


class DeferredInterrupt:
    """Within its `with` block, the only effect of Ctrl-C is that the next `check` raises KeyboardInterrupt.

    For the main thread only.
    """

    def __enter__(self) -> DeferredInterrupt:
        self._pending = False
        self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *details: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._pending = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._pending:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class ChatOptions:
    """template: replaces the model's. extra: further template variables."""

    params: InferenceParameters
    session: InferenceSessionConfig = field(default_factory=InferenceSessionConfig)
    template: str | None = None
    reasoning: ReasoningOptions = field(default_factory=ReasoningOptions)
    extra: Mapping[str, Any] = field(default_factory=dict)


class LocalModel:
    """Answers with `model`, which it closes. A turn computes only what is not yet in the session."""

    def __init__(self, model: Model, name: str, options: ChatOptions) -> None:
        """Raises ConfigError if the model has no usable chat template, ModelError if it does not generate
        text.
        """
        self.name, self._model, self._options = name, model, options
        self._session = self._new_session()
        formats = load_chat_formats(model.tokenizer, options.template)
        if formats is None:
            raise ConfigError(
                f"the model {name} has no chat template; set one with --chat-template FILE, or continue "
                "a text with `ggserve infer -p TEXT`"
            )
        if isinstance(formats, TemplateFailed):
            raise ConfigError(f"{formats}; set another one with --chat-template FILE")
        self._formats = formats
        self._special_tokens = special_tokens_of(model.tokenizer)

    def answer(self, messages: Sequence[Message]) -> Iterator[Piece]:
        """See `Backend`."""
        try:
            with DeferredInterrupt() as interrupt:
                rendered = self._render(messages)
                for warning in rendered.warnings:
                    yield Piece(warning=warning)
                self._feed(self._tokens(rendered), interrupt)
                yield from self._generate(rendered, interrupt)
        except EngineError as error:
            raise AnswerFailed(str(error)) from error

    def save_cache(self, path: Path) -> int:
        """See `Backend`."""
        return self._session.save(path) if self._session.tokens else 0

    def load_cache(self, path: Path) -> None:
        """See `Backend`."""
        self._session.close()
        self._session = self._new_session()
        self._session.restore(path)

    def close(self) -> None:
        self._session.close()
        self._model.close()

    def _new_session(self) -> InferenceSession:
        return self._model.start_session(self._options.session)

    def _render(self, messages: Sequence[Message]) -> Prompt:
        options = self._options
        chat = ChatInput(list(messages), reasoning=options.reasoning, extra=dict(options.extra))
        try:
            return render_prompt(chat, self._formats, self._special_tokens)
        except InvalidMessage as error:
            raise AnswerFailed(f"messages{error.path}: {error}") from error
        except (TemplateFailed, RecursionError) as error:
            raise AnswerFailed(str(error)) from error

    def _tokens(self, rendered: Prompt) -> list[int]:
        tokenizer, n_ctx = self._model.tokenizer, self._model.n_ctx
        tokens: list[int] = []
        for piece in rendered.pieces:
            tokens += tokenizer.encode(piece, add_special=False, parse_special=True)
        bos = tokenizer.bos_id
        if tokenizer.add_bos and bos is not None and tokens[:1] != [bos]:  # most templates write it
            tokens.insert(0, bos)
        if len(tokens) >= n_ctx:
            raise AnswerFailed(
                f"the conversation has {len(tokens)} tokens and the context holds {n_ctx}: shorten the "
                f"message, or start a new conversation with /clear; {self._larger_context()}"
            )
        return tokens

    def _larger_context(self) -> str:
        trained = int(self._model.hp.n_ctx_train)
        if self._model.n_ctx < trained:
            return f"the context can be enlarged to {trained} tokens with --context-size"
        return "the model was not trained for a larger context"

    def _feed(self, tokens: list[int], interrupt: DeferredInterrupt) -> None:
        """Make these the session's tokens, keeping the common prefix."""
        session = self._session
        held = session.tokens
        n_same = 0
        for old, new in zip(held, tokens, strict=False):
            if old != new:
                break
            n_same += 1
        session.rewind(len(held) - n_same)
        for start in range(n_same, len(tokens), session.n_batch):
            interrupt.check()
            session.feed_prompt(tokens[start : start + session.n_batch])

    def _generate(self, rendered: Prompt, interrupt: DeferredInterrupt) -> Iterator[Piece]:
        model, session, params = self._model, self._session, self._options.params
        parser = rendered.new_parser()
        detokenizer = Detokenizer(model.tokenizer, preserved=rendered.preserved_tokens())
        thinking = None
        markers = rendered.reasoning_markers
        if markers is not None:
            block = reasoning_block(markers, self._options.reasoning, rendered.opened, model.tokenizer)
            thinking = block if block.budget is not None else None
        n, ended = 0, False
        for token in session.infer(params, thinking=thinking):
            n += 1
            ended = token.id in model.eog_ids
            if not ended:
                yield _piece(parser, detokenizer.push(token.id))
            interrupt.check()
        yield _piece(parser, detokenizer.flush(), last=True)
        if ended:
            return
        if len(session.tokens) >= model.n_ctx and not model.params.context_shift:
            yield Piece(
                note=f"the answer ends here because the context of {model.n_ctx} tokens is full: start a new "
                f"conversation with /clear; {self._larger_context()}"
            )
        elif params.max_tokens is not None and n >= params.max_tokens:
            yield Piece(note=f"the answer ends here because of --max-tokens {params.max_tokens}")


def _piece(parser: AnswerParser | None, text: str, last: bool = False) -> Piece:
    parsed = OutputDelta(text) if parser is None else parser.push(text, last)
    return Piece(parsed.content, parsed.reasoning)
