"""How the signer suite reaches a key of kind `web3signer`: a stand-in of the documented shape, over mutual TLS with a token."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from key_case import KEY_HEX, Far
from signing_service import Authority, Service

from agent.keys.custody import web3signer

TOKEN = "a word that only the service may hear"


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    authority = Authority(folder / "tls")
    authority.issue("server")
    authority.issue("agent")
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(TOKEN)
    service = Service(KEY_HEX, token=TOKEN, certificates=folder / "tls", wants_certificate=True)
    settings = {
        "kind": "web3signer",
        "address": service.account.address,
        "url": service.url,
        "identifier": service.identifier,
        "token": "file:token",
        "ca": "tls/ca.pem",
        "certificate": "tls/agent.pem",
        "certificate_key": "tls/agent.key",
    }
    try:
        yield Far(web3signer, folder, service.account.address, settings, (KEY_HEX, TOKEN), service.stop, service.start)
    finally:
        service.stop()
