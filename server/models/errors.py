"""Why a model could not be had."""

from __future__ import annotations


class DownloadError(Exception):
    """The message says why, and what to do about it, in one line."""


class ModelNotFound(DownloadError):
    """There is no such model where it was looked for."""


class NotRemovable(DownloadError):
    """The model is here, but ggserve did not download it."""
