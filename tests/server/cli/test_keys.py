"""`ggserve keys`."""

from __future__ import annotations

import re

import pytest

from engine.errors import ConfigError
from server.cli import keys
from server.keys.api_key import Profile, RateLimits, Role, digest_of
from server.keys.key_file import read_line


def test_a_new_key_is_on_stderr_and_its_line_on_stdout(capsys):
    assert keys.run(["new", "--name", "ops", "--role", "admin", "--rpm", "60", "--priority", "-5"]) == 0
    out, err = capsys.readouterr()
    key = err.split()[-1]
    assert re.fullmatch(r"ggs-[\w-]{43}", key)
    assert key not in out
    line = read_line(out)
    assert line.key.digest == digest_of(key)
    profile = line.key.profile
    assert profile == Profile("ops", Role.ADMIN, RateLimits(60), priority=-5)


def test_every_new_key_is_different(capsys):
    for _ in range(2):
        keys.run(["new"])
    assert len(set(capsys.readouterr().out.split())) == 2


def test_value_the_server_would_refuse_is_refused():
    with pytest.raises(ConfigError, match=r"--tpm must be a whole number from 1 to 1000000000"):
        keys.run(["new", "--tpm", "many"])


def test_list_shows_clients_without_their_keys(tmp_path, capsys):
    file = tmp_path / "keys"
    file.write_text(
        f"secret name=a rpm=5 weight=2 priority=-7\nsha256:{digest_of('x').hex()} name=b role=admin\n"
    )
    assert keys.run(["list", str(file)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["name", "a", "b"]
    assert rows[1][1:7] == ["user", "5", "-", "-", "2", "-7"]
    assert rows[2][1] == "admin"
    assert "secret" not in str(rows)


def test_list_shows_that_the_only_client_is_an_admin(tmp_path, capsys):
    file = tmp_path / "keys"
    file.write_text("secret name=a\nother name=a\n")
    assert keys.run(["list", str(file)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["name", "role"], ["a", "admin"], ["a", "admin"]]


@pytest.mark.parametrize("arguments", [["list"], ["new", "x"], ["sell"], []])
def test_wrong_usage_is_reported_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        keys.run(arguments)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
