"""The route class of all APIs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from threading import RLock
from typing import Any

from fastapi.routing import APIRoute
from fastapi.utils import create_model_field
from starlette.routing import compile_path

_preparing = RLock()


class Route(APIRoute):
    """A route that FastAPI prepares on first use: preparing all routes takes longer than loading a small
    model.

    Response models are read for the API description only. Any thread may be the first to use a route.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: set[str] | list[str] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        # What matching a request needs.
        self.path, self.endpoint, self.name = path, endpoint, endpoint.__name__
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.methods = set(methods or ["GET"])
        self.replies = responses or {}
        self._options: dict[str, Any] | None = options

    def __getattr__(self, name: str) -> Any:  # of an attribute that is not there yet
        if name.startswith("__") or "_options" not in self.__dict__:
            raise AttributeError(name)
        self.prepare()
        return object.__getattribute__(self, name)

    def prepare(self) -> None:
        """Let FastAPI read the endpoint's signature and build the validation of its parameters."""
        with _preparing:
            if self._options is not None:
                options, self._options = self._options, None
                super().__init__(self.path, self.endpoint, methods=self.methods, **options)
                self.responses = self.replies
                if self.body_field is not None:
                    with warnings.catch_warnings():  # as FastAPI, which leaves it to the first request here
                        warnings.simplefilter("ignore")
                        self.body_field._type_adapter.rebuild(force=True)

    @cached_property
    def _reply_fields(self) -> dict[int | str, Any]:
        return {
            status: create_model_field(
                f"Response_{status}_{self.unique_id}", reply["model"], mode="serialization"
            )
            for status, reply in self.responses.items()
            if "model" in reply
        }

    @property
    def response_fields(self) -> dict[int | str, Any]:
        """The models of replies, by status, as FastAPI describes them."""
        return self._reply_fields

    @response_fields.setter
    def response_fields(self, fields: dict[int | str, Any]) -> None:
        """FastAPI sets it, without models."""
