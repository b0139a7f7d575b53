"""Stand-ins for Google Cloud KMS and Azure Key Vault, of the shape that their REST references document: no emulator is at hand.

What asks for tokens is real: Google's and Microsoft's own libraries get theirs here, as they would on a machine of those clouds.
"""

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from signing_service import QuietServer

Answer = tuple[int, Any]
Route = Callable[[bytes, Any], Answer]


class CloudStub:
    """`routes`: (method, path) to what answers it, given the body and the headers. `bend`, when set, changes every answer."""

    def __init__(self, routes: dict[tuple[str, str], Route]) -> None:
        self.routes, self.bend = routes, None
        self.bend: Callable[[str, Answer], Answer] | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        stub = self

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536
            disable_nagle_algorithm = True

            def talk(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                route = stub.routes.get((self.command, self.path.partition("?")[0]))
                answer = (404, {}) if route is None else route(body, self)
                status, document = answer if stub.bend is None else stub.bend(self.path, answer)
                raw = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = talk  # noqa: N815 - the names that the library looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = QuietServer(("127.0.0.1", self._port), Talk, None)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def signed_der(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """As a cloud signs: over the digest as it is, s above half the order as often as below."""
    assert len(digest) == 32
    return key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def signed_pair(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    r, s = utils.decode_dss_signature(signed_der(key, digest))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def with_token(token: str, route: Route) -> Route:
    """Only for who shows the token."""
    return lambda body, talk: route(body, talk) if talk.headers["Authorization"] == f"Bearer {token}" else (401, {})


def query(talk: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(talk.path).query)


def url_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
