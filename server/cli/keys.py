"""`ggserve keys`: make API keys, and show what a key file says."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from engine.errors import ConfigError
from server.cli.command import Parser
from server.keys.api_key import digest_of
from server.keys.key_file import HASH_PREFIX, read_key_file, read_line

PREFIX = "ggs-"  # tells scanners for leaked keys what it is
ATTRIBUTES = {
    "name": ("NAME", "what logs call its client; keys with the same name are one client"),
    "role": ("ROLE", "user (default) or admin: may also cancel every request, and change models and slots"),
    "rpm": ("N", "requests per minute"),
    "tpm": ("N", "tokens per minute, of prompts and answers"),
    "concurrency": ("N", "requests at the same time"),
}
EXAMPLES = """\
  ggserve keys new --name alice >> keys          the key on the terminal, its hash in the file
  ggserve keys new --name ops --role admin
  ggserve keys list keys                         check a file before the server reads it

A line of the file is KEY or sha256:HASH, then attributes: name=alice role=user rpm=60 tpm=50000."""


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve keys", "Make API keys for --api-key-file, and check such a file.", EXAMPLES)
    parser.add_argument("command", choices=("new", "list"), help="new: a key on stderr, its line on stdout")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="of list: the key file to show")
    group = parser.add_argument_group("attributes of a new key")
    for name, (metavar, text) in ATTRIBUTES.items():
        group.add_argument(f"--{name}", metavar=metavar, help=text)
    args = parser.parse_args(arguments)
    if (args.file is None) == (args.command == "list"):
        parser.error("list takes a key file, new takes none")
    return _new(args) if args.command == "new" else _list(args.file)


def _new(args: argparse.Namespace) -> int:
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{HASH_PREFIX}{digest_of(key).hex()}"
    for name in ATTRIBUTES:
        value = getattr(args, name)
        if value is not None:
            line += f" {name}={value}"
    try:
        read_line(line)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    sys.stderr.write(f"the key, which is stored nowhere: {key}\n")
    print(line)
    return 0


def _list(file: Path) -> int:
    rows = [("name", "role", *list(ATTRIBUTES)[2:], "stored as")]
    for line in read_key_file(file):
        profile = line.key.profile
        limits = profile.limits
        rows.append(
            (
                profile.name,
                profile.role or "-",
                *(
                    "-" if limit is None else str(limit)
                    for limit in (
                        limits.requests_per_minute,
                        limits.tokens_per_minute,
                        limits.concurrent_requests,
                    )
                ),
                "hash" if line.secret is None else "plain text",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
