"""`ggserve pull`: download a model by name."""

from __future__ import annotations

import sys

from engine.errors import ConfigError
from server import logs
from server.cli.command import Parser
from server.cli.console import LoadProgress
from server.cli.pulling import PLAN_OPTIONS, pulling
from server.config import sources
from server.models import catalog

EXAMPLES = """\
  ggserve pull qwen3-8b                        a short name (configs/models.yml)
  ggserve pull Qwen/Qwen3-8B-GGUF              Q4_K_M, else the largest that fits in memory
  ggserve pull Qwen/Qwen3-8B-GGUF:Q8_0         a quantization, or a file: :NAME.gguf
  HF_TOKEN=hf_… ggserve pull OWNER/REPO        a private or gated repository
  HF_ENDPOINT=https://hub.example ggserve pull OWNER/REPO   a mirror
  ggserve serve --model hf:Qwen/Qwen3-8B-GGUF  serve it, downloading it if necessary"""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "ggserve pull",
        "Download a GGUF model from the Hugging Face Hub into its cache, verify it and print its path.\n"
        "Files already in the cache are only verified. The options below affect only the memory plan that\n"
        "is shown first.",
        EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="OWNER/REPO, OWNER/REPO:QUANT, or a short name")
    sources.add_options(parser, serve=True, names=PLAN_OPTIONS)
    options = parser.parse_args(arguments)
    settings = sources.load(sources.from_arguments(options), options.config)
    logs.configure(settings.log_level, settings.log_format)
    with LoadProgress(bar=settings.log_format == "text", verb="pulling") as bar:
        try:
            path = catalog.pull(options.name, pulling(settings, bar))
        except ValueError as error:
            raise ConfigError(str(error)) from error
    sys.stdout.write(f"{path}\n")
    return 0
