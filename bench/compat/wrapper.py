"""llama-server's command line for ggserve: what the suite starts in place of llama-server.

Runs in a process of its own and becomes the server. Flags that name nothing we have are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

HEADER = "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
TURN = "<|START_OF_TURN_TOKEN|><|{{ names[m['role']] }}_TOKEN|>{{ m['content'] }}<|END_OF_TURN_TOKEN|>"
NAMES = "{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}"
# Templates that llama-server knows by name.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama3": "{% for m in messages %}" + HEADER + "{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "command-r": NAMES + "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", required=True)
    parser.add_argument("--alias")
    parser.add_argument("--tags")
    parser.add_argument("--ctx-size", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--ubatch-size", type=int)
    parser.add_argument("--threads")
    parser.add_argument("--temp")
    parser.add_argument("--seed")
    parser.add_argument("--n-predict", type=int, default=-1)
    parser.add_argument("--api-key")
    parser.add_argument("--slot-save-path")
    parser.add_argument("--pooling")
    parser.add_argument("--reasoning")
    parser.add_argument("--reasoning-format")
    parser.add_argument("--chat-template")
    parser.add_argument("--chat-template-file")
    parser.add_argument("--cors-origins")
    parser.add_argument("-ctk")
    for flag in ("--metrics", "--slots", "--verbose", "--no-ui", "--context-shift"):
        parser.add_argument(flag, action="store_true")
    return parser


def arguments(command_line: list[str]) -> list[str]:
    """Ours for llama-server's."""
    a, _ = _parser().parse_known_args(command_line)
    actual = ["serve", "--host", a.host, "--port", a.port, "--use-gpu", "false", "--any-model"]

    def add(name: str, value: object) -> None:
        if value is not None:
            actual.extend((f"--{name}", str(value)))

    aliases = sorted(a.alias.split(",")) if a.alias else []
    add("model", f"{aliases[0]}={a.model}" if aliases else a.model)
    for alias in aliases[1:]:
        add("alias", alias)
    for tag in a.tags.split(",") if a.tags else ():
        add("tag", tag)
    add("parallel", a.parallel)
    if a.ctx_size:
        # Slots share the cells if it is unified, else each has its part of them.
        add("context-size", a.ctx_size if a.kv_unified else a.ctx_size // a.parallel)
        add("kv-cells", a.ctx_size)
    add("batch-size", a.batch_size)
    add("max-batch-tokens", a.ubatch_size or a.batch_size)
    add("threads", a.threads)
    add("default", f"temperature={a.temp}" if a.temp else None)
    add("seed", a.seed)
    add("default", f"max_tokens={a.n_predict}" if a.n_predict >= 0 else None)
    add("api-key", a.api_key)
    add("kv-type", a.ctk)
    add("pooling", a.pooling)
    if a.slot_save_path:
        Path(a.slot_save_path).mkdir(exist_ok=True)
        add("slot-save-path", a.slot_save_path)
    template = a.chat_template_file
    if a.chat_template:
        template = Path(tempfile.gettempdir()) / f"template-{os.getpid()}.jinja"
        template.write_text(TEMPLATES.get(a.chat_template, a.chat_template))
    add("chat-template", template)
    add("reasoning", a.reasoning)
    add("reasoning-format", a.reasoning_format)
    if a.context_shift:
        actual.append("--context-shift")
    if not a.metrics:
        actual.append("--no-metrics")
    if not a.slots:
        actual.append("--no-slots")
    add("log-level", "debug" if a.verbose else "info")
    return actual


if __name__ == "__main__":
    sys.argv = ["ggserve", *arguments(sys.argv[1:])]
    print(*sys.argv, file=sys.stderr)
    from server.cli.main import main

    sys.exit(main())
