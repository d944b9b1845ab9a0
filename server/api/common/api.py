"""What an API declares to the application."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from server.errors import ErrorFormat


@dataclass(frozen=True)
class Api:
    """The routes of one API, and its error format if it differs from the default (`replies.errors`)."""

    routers: tuple[APIRouter, ...]
    errors: ErrorFormat | None = None
