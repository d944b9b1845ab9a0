"""`__verbose` of the OpenAI routes: llama-server's own answer in theirs, to see the prompt as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server.api.llama_server.completion.formatter import NativeFormat, prompts_of

if TYPE_CHECKING:
    from server.api.common.generation_fields import GenerationFields
    from server.generation.job import Job
    from server.http.sse import Answer


async def add_verbose(job: Job, body: GenerationFields) -> Job:
    """Where the request, or the server with --log-level debug, asks for it."""
    asked = body.verbose
    if asked or (asked is None and job.state.settings.log_level == "debug"):
        format = NativeFormat(job, await prompts_of(job), return_tokens=True, stop=body.stop or ())

        def tell(answers: Sequence[Answer]) -> dict[str, Any]:
            return format.result(job.choices[0], answers)

        job.verbose = tell
    return job
