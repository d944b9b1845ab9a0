"""Files of --tls-cert and --tls-key: what is wrong with them in one line, and new ones after SIGHUP."""

from __future__ import annotations

import logging

import pytest

from engine.errors import ConfigError
from server.http.certificate import PASSWORD_VARIABLE, Certificate
from support.fakes.http_app import make_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_certificate_and_key_may_be_in_one_file_or_two(tmp_path, files, caplog):
    cert, key = files
    assert Certificate(cert, key).context
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    both.chmod(0o600)
    assert Certificate(both).context
    assert not caplog.records


def test_errors_are_reported_in_one_line(tmp_path, files):
    cert, key = files
    other_cert, _ = make_certificate(tmp_path, "other")
    rsa_cert, _ = make_certificate(tmp_path, "rsa", ("-newkey", "rsa:2048"))
    empty = tmp_path / "empty"
    empty.write_text("")
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    absent = tmp_path / "absent"
    for pair, message in [
        ((absent, key), f"--tls-cert {absent}: No such file or directory"),
        ((cert, absent), f"--tls-key {absent}: No such file or directory"),
        ((tmp_path, key), f"--tls-cert {tmp_path}: Is a directory"),
        ((empty, key), f"--tls-cert {empty}: has no certificate in PEM format"),
        ((cert, empty), f"--tls-key {empty}: has no private key in PEM format"),
        ((cert, None), f"--tls-cert {cert}: has no private key in PEM format"),
        ((other_cert, key), f"--tls-key {key}: is not the key of the certificate {other_cert}"),
        ((rsa_cert, key), f"--tls-key {key}: is not the key of the certificate {rsa_cert}"),
    ]:
        with pytest.raises(ConfigError) as failure:
            Certificate(*pair)
        assert str(failure.value) == message
    with pytest.raises(ConfigError, match=f"^--tls-cert {broken}: cannot be used, or its key: "):
        Certificate(broken, key)


def test_key_with_a_password_reads_it_from_the_environment(tmp_path, monkeypatch):
    cert, key = make_certificate(tmp_path, "locked", password="open sesame")
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"is encrypted; set its password in {PASSWORD_VARIABLE}"):
        Certificate(cert, key)
    for wrong in ("sesame", "sesame" * 200):  # OpenSSL takes at most 1024 bytes
        monkeypatch.setenv(PASSWORD_VARIABLE, wrong)
        with pytest.raises(
            ConfigError, match=f"the password in {PASSWORD_VARIABLE} does not open it"
        ) as failure:
            Certificate(cert, key)
        assert ": sesame" not in str(failure.value)
    monkeypatch.setenv(PASSWORD_VARIABLE, "open sesame")
    assert Certificate(cert, key).context


def test_a_key_that_everyone_can_read_gets_a_warning(tmp_path, caplog):
    cert, key = make_certificate(tmp_path)
    key.chmod(0o640)
    Certificate(cert, key)
    assert not caplog.records
    key.chmod(0o644)
    Certificate(cert, key)
    assert f"every user of this machine can read the private key {key} (mode 0644)" in caplog.text


def test_files_are_reloaded_unless_they_are_invalid(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ggserve")
    cert, key = make_certificate(tmp_path)
    certificate = Certificate(cert, key)
    before = certificate.context
    cert.write_bytes(make_certificate(tmp_path, "new")[0].read_bytes())  # the key is still the old one
    certificate.reload_or_log()
    assert certificate.context is before
    assert "is not the key of the certificate" in caplog.text
    assert "the previous certificate stays in use" in caplog.text
    key.write_bytes((tmp_path / "new.key").read_bytes())
    certificate.reload_or_log()
    assert certificate.context is not before
    assert f"read the certificate {cert}" in caplog.text
