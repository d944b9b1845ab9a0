"""Which options take effect while the server runs, when they are read again."""

from __future__ import annotations

from typing import Any

from server.config.settings import Settings

LIVE = frozenset(
    (
        # what requests get that do not say otherwise
        *("default", "seed", "batch_size", "spec_type", "spec_draft_n_max", "chat_template_kwargs"),
        *("reasoning", "reasoning_format", "reasoning_budget"),
        # limits
        *("max_queue", "max_choices", "max_inputs", "max_header_bytes", "max_body_bytes", "cache_isolation"),
        *("keep_alive_s", "drain_s", "request_timeout_s"),
        *("send_timeout_s", "header_timeout_s", "body_timeout_s"),
        # models
        *("sleep_idle_seconds", "no_models_autoload", "allow_pull"),
        *("log_level", "log_format"),
    )
)


def changes(settings: Settings, now: Settings) -> tuple[dict[str, Any], list[str]]:
    """The differences in `now`: the values that take effect at once, and the options that need a restart."""
    names = [name for name in Settings.model_fields if getattr(now, name) != getattr(settings, name)]
    return {name: getattr(now, name) for name in names if name in LIVE}, [n for n in names if n not in LIVE]
