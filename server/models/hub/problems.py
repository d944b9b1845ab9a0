"""Errors of the Hub, with what to do about them, in one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.models.errors import DownloadError, ModelNotFound
from server.models.progress import size_text


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turns errors of the Hub, the network and the disk in the block into a DownloadError."""
    try:
        yield
    except Exception as error:
        if (reason := explain(error, repo)) is None:
            raise
        raise reason from error


def explain(error: Exception, repo: str) -> DownloadError | None:
    """The error in our words; None if it is not an error of the Hub, the network or the disk."""
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{repo} is gated: accept its terms at {endpoint}/{repo}, then set that account's token: "
            "`hf auth login`, or HF_TOKEN in the environment"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFound(
            f"{endpoint} has no repository {repo}; check the spelling. If it is private, set a token: "
            "`hf auth login`, or HF_TOKEN in the environment"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return DownloadError(
            f"{repo} is not on this machine, and HF_HUB_OFFLINE is set; unset it, or choose one of the "
            "models in `ggserve list`"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return DownloadError(f"{repo} changed during the download; pull it again")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return DownloadError(
                f"{endpoint} denied access to {repo} (HTTP {status}); set a valid token: "
                "`hf auth login`, or HF_TOKEN"
            )
        return DownloadError(f"{endpoint} responded with HTTP status {status} for {repo}; try again later")
    if isinstance(error, json.JSONDecodeError):
        return DownloadError(
            f"{endpoint} does not answer as a Hub does; check HF_ENDPOINT, and whether the network asks for "
            "a sign-in first"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError(f"the disk of {constants.HF_HUB_CACHE} is full; {MAKE_ROOM}")
    if isinstance(error, errors.LocalEntryNotFoundError) or type(error).__module__.startswith("httpx"):
        cause = error.__cause__ or error
        return DownloadError(
            f"cannot reach {endpoint} ({cause or type(cause).__name__}); check the network, HTTPS_PROXY "
            "and HF_ENDPOINT. `ggserve list` shows the models on this machine, which need no network"
        )
    if isinstance(error, OSError) and error.errno is None:  # the library's check of the size
        return DownloadError(f"{repo}: the file does not have the size that {endpoint} states; pull it again")
    if isinstance(error, OSError):
        return DownloadError(f"{error.filename or constants.HF_HUB_CACHE}: {error.strerror or error}")
    return None


MAKE_ROOM = "free some space (`ggserve list`, `ggserve rm NAME`), or set HF_HOME to a folder on another disk"


def no_space(repo: str, needed: int, free: int, folder: Path) -> DownloadError:
    return DownloadError(
        f"{repo} needs {size_text(needed)} of disk space, but only {size_text(free)} are free in "
        f"{os.fspath(folder)}; {MAKE_ROOM}"
    )
