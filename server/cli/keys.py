"""`ggserve keys`: generate API keys, and list the contents of a key file."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from engine.errors import ConfigError
from server.cli.command import Parser
from server.keys.api_key import Role, digest_of
from server.keys.key_file import HASH_PREFIX, read_key_file, read_line

PREFIX = "ggs-"  # tells scanners for leaked keys what it is
ATTRIBUTES = {
    "name": ("NAME", "the client's name in logs; keys with the same name belong to one client"),
    "role": ("ROLE", "user (default), or admin, who can also cancel any request and change models and slots"),
    "rpm": ("N", "requests per minute"),
    "tpm": ("N", "tokens per minute, of prompts and answers"),
    "concurrency": ("N", "concurrent requests"),
    "weight": ("N", "the client's share of the engine, relative to other clients (default 1)"),
    "priority": (
        "N",
        "default priority of the client's requests, and the highest that they may ask for; lower numbers are "
        "served first (default 0)",
    ),
}
EXAMPLES = """\
  ggserve keys new --name alice >> keys          prints the key, appends its hash to the file
  ggserve keys new --name ops --role admin
  ggserve keys list keys                         check a file before the server reads it

A line of the file is KEY or sha256:HASH, then attributes: name=alice role=user rpm=60 tpm=50000."""


def run(arguments: list[str]) -> int:
    parser = Parser("ggserve keys", "Generate API keys for --api-key-file, and check such a file.", EXAMPLES)
    parser.add_argument(
        "command", choices=("new", "list"), help="new: print a key to stderr and its line to stdout"
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the key file to list")
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
    sys.stderr.write(f"the key, which is not stored anywhere: {key}\n")
    print(line)
    return 0


def _list(file: Path) -> int:
    rows = [("name", "role", *list(ATTRIBUTES)[2:], "stored as")]
    lines = read_key_file(file)
    default_role = Role.USER if len({line.key.profile.name for line in lines}) > 1 else Role.ADMIN
    for line in lines:
        profile = line.key.profile
        limits = profile.limits
        rows.append(
            (
                profile.name,
                profile.role or default_role,
                *(
                    "-" if limit is None else str(limit)
                    for limit in (
                        limits.requests_per_minute,
                        limits.tokens_per_minute,
                        limits.concurrent_requests,
                    )
                ),
                str(profile.weight),
                str(profile.priority),
                "hash" if line.secret is None else "plain text",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
