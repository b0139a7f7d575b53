"""A small HTTPS service in the documented shape of Web3Signer's eth1 API, for tests: the program itself, Java, is not run here.

It knows its callers by certificate, by token, or not at all; its certificates come from an authority that is made on the spot.
"""

import datetime
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from eth_account import Account
from eth_utils import keccak

SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Its own certificate is `ca.pem` in `folder`; `issue` writes `<name>.pem` and `<name>.key` beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {folder.name}")])
        own = self._unsigned(self._name, self._key.public_key())
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        (folder / "ca.pem").write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._unsigned(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
        place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signed = made.add_extension(place, critical=False).sign(self._key, hashes.SHA256())
        (self.folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret = self.folder / f"{name}.key"
        secret.touch(mode=0o600)
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))

    def _unsigned(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        return made.serial_number(x509.random_serial_number()).not_valid_before(SINCE).not_valid_after(UNTIL)


class Service:
    """`answer`, when set, is (status, body) for every request to sign. `asked` is what it was asked to sign."""

    def __init__(self, key_hex: str, *, token: str = "", certificates: Path | None = None, wants_certificate: bool = False) -> None:
        self.account = Account.from_key(key_hex)
        self.identifier = "0x" + self.account._key_obj.public_key.to_bytes().hex()
        self.answer: tuple[int, bytes] | None = None
        self.asked: list[bytes] = []
        self._token, self._certificates, self._wants = token, certificates, wants_certificate
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._certificates else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        service = self

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # head and body in one packet
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                known = {"/upcheck": b"OK", "/api/v1/eth1/publicKeys": json.dumps([service.identifier]).encode()}
                self.reply(*((200, known[self.path]) if self.path in known else (404, b"")))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != f"/api/v1/eth1/sign/{service.identifier}" or self.headers["Content-Type"] != "application/json":
                    self.reply(404, b"")
                    return
                data = bytes.fromhex(json.loads(body)["data"].removeprefix("0x"))
                service.asked.append(data)
                signed = service.account.unsafe_sign_hash(keccak(data)).signature
                self.reply(*(service.answer or (200, b"0x" + bytes(signed).hex().encode())))

            def reply(self, status: int, body: bytes) -> None:
                if service._token and self.headers["Authorization"] != f"Bearer {service._token}":
                    status, body = 401, b""
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = QuietServer(("127.0.0.1", self._port), Talk, self._tls())
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _tls(self) -> ssl.SSLContext | None:
        if self._certificates is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificates / "server.pem", self._certificates / "server.key")
        if self._wants:
            context.load_verify_locations(self._certificates / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class QuietServer(ThreadingHTTPServer):
    """Each connection shakes hands in its own thread; all of them end with the server."""

    daemon_threads = True

    def __init__(self, place: tuple[str, int], talk: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> None:
        super().__init__(place, talk)
        self._tls, self._open = tls, set[object]()

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
        except OSError:
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        self._open.add(request)
        super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        self._open.discard(request)

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    def server_close(self) -> None:
        super().server_close()
        for request in tuple(self._open):
            self.shutdown_request(request)  # type: ignore[arg-type]
