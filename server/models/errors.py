"""Why a model could not be obtained."""

from __future__ import annotations


class DownloadError(Exception):
    """The message says in one line why, and what to do about it."""


class ModelNotFound(DownloadError):
    """The model does not exist in the place where it was looked for."""


class NotRemovable(DownloadError):
    """The model exists, but ggserve did not download it."""
