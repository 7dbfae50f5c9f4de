"""https, from two lines in the file."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from penstock.app.errors import StartError
from penstock.app.listen import tls_context
from penstock.app.serve import ServeOptions
from tests.app.driver import Running, serving


@pytest.fixture
def files(tmp_path: Path) -> tuple[trustme.CA, Path, Path]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    issued.private_key_pem.write_to_path(key)
    return authority, certificate, key


def test_a_certificate_beside_the_file_makes_it_https(files: tuple[trustme.CA, Path, Path], tmp_path: Path) -> None:
    authority, _, _ = files
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "models: { chat: { deployments: [up] } }\n"
        "deployments: { up: { engine: http://127.0.0.1:9, health: off } }\n"
        "server: { tls: { certificate: certificate.pem, key: key.pem }, access_log: off }\n"
    )

    async def story(running: Running) -> None:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusting)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b'"alive"' in await reader.read(-1)
        writer.close()

    options = ServeOptions(config_path=str(config), port=0, insecure_dev=True)
    code, told = asyncio.run(serving(options, story))
    assert code == 0
    assert any("https://127.0.0.1" in line for line in told)


def test_files_that_cannot_be_used_are_named(files: tuple[trustme.CA, Path, Path], tmp_path: Path) -> None:
    _, certificate, key = files
    with pytest.raises(StartError, match="there is no"):
        tls_context(str(tmp_path / "gone.pem"), str(key))
    with pytest.raises(StartError, match="must be PEM"):
        tls_context(str(tmp_path), str(key))
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(other)
    with pytest.raises(StartError, match="do not belong together"):
        tls_context(str(certificate), str(other))
