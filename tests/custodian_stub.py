"""A stand-in for Fireblocks, of the shape that its API reference documents: it checks every token, keeps one transaction for each
external id, waits for its people, and then really pays on the local chain. Fireblocks itself was not asked.
"""

import hashlib
import json
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

API_KEY = "an api user"
PEM, PUBLIC = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


class Custodian:
    """`pay`: carries a transaction out and gives its hash. `lose`: how many of the next posts are taken, but not answered."""

    def __init__(self, now_s: Callable[[], int], pay: Callable[[dict[str, Any]], str]) -> None:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.secret = key.private_bytes(PEM, form, plain).decode()
        self._public = key.public_key().public_bytes(PEM, PUBLIC).decode()
        self._now_s, self._pay = now_s, pay
        self.kept: dict[str, dict[str, Any]] = {}
        self.lose, self.posts, self._nonces, self._guard = 0, 0, set[str](), Lock()
        self.status: int | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def forget(self) -> None:
        self.kept, self.lose, self.status = {}, 0, None

    def approve(self, external_id: str) -> None:
        """What its people do in their app."""
        found = next(one for one in self.kept.values() if one["externalTxId"] == external_id)
        if found["status"] == "PENDING_AUTHORIZATION":
            found.update(status="COMPLETED", txHash=self._pay(found))

    def set(self, external_id: str, **fields: str) -> None:
        next(one for one in self.kept.values() if one["externalTxId"] == external_id).update(fields)

    # -- its side of the wire ------------------------------------------------------------------------------------------

    def refusal(self, talk: Any, body: bytes) -> int:
        """Why a request is not heard; 0 if it is."""
        try:
            token = talk.headers["Authorization"].removeprefix("Bearer ")
            options = {"verify_exp": False, "verify_iat": False}
            claims = jwt.decode(token, self._public, algorithms=["RS256"], options=options)
        except (jwt.PyJWTError, AttributeError):
            return 401
        with self._guard:
            is_new = claims["nonce"] not in self._nonces
            self._nonces.add(claims["nonce"])
        rules = (
            is_new,
            claims["uri"] == talk.path,
            claims["sub"] == API_KEY == talk.headers["X-API-Key"],
            claims["bodyHash"] == hashlib.sha256(body).hexdigest(),
            claims["iat"] <= self._now_s() < claims["exp"] <= claims["iat"] + 30,
        )
        return 0 if all(rules) else 401

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if (method, path) == ("POST", "/v1/transactions"):
            asked = json.loads(body)
            with self._guard:
                self.posts += 1
                if any(one["externalTxId"] == asked["externalTxId"] for one in self.kept.values()):
                    return 400, {"message": "The external tx id that was provided in the request, already exists", "code": 1438}
                kept = {"id": str(uuid.uuid4()), "status": "PENDING_AUTHORIZATION", "subStatus": "", "txHash": "", **asked}
                self.kept[kept["id"]] = kept
            return 200, {"id": kept["id"], "status": "SUBMITTED"}
        parts = path.split("/")
        if method == "GET" and parts[3] == "external_tx_id":
            found = [one for one in self.kept.values() if one["externalTxId"] == parts[4]]
            return (200, found[0]) if found else (404, {"message": "Not found", "code": 1404})
        if method == "POST" and parts[-1] == "cancel" and parts[3] in self.kept:
            kept = self.kept[parts[3]]
            if kept["status"] == "PENDING_AUTHORIZATION":
                kept["status"] = "CANCELLED"
                return 200, {"success": True}
            return 400, {"success": False}
        return 404, {}

    def start(self) -> None:
        custodian = self

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536
            disable_nagle_algorithm = True

            def talk(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                status = custodian.status or custodian.refusal(self, body)
                answer = (status, {}) if status else custodian.answer(self.command, self.path, body)
                if custodian.lose and self.command == "POST":
                    custodian.lose -= 1
                    self.close_connection = True
                    return
                raw = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = talk  # noqa: N815 - the names that the library looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Talk)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
