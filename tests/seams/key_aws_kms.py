"""How the signer suite reaches a key of kind `aws_kms`: Moto's server, over HTTP, in a process of its own.

Moto hashes a digest once more before it signs it, which KMS does not. That one function is put right here, in that process.
"""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from key_case import Far

from agent.keys.curve_point import address_of, point_of
from agent.keys.custody import aws_kms

SERVER = """
import sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from moto.kms.utils import ECDSAPrivateKey
from moto.server import ThreadedMotoServer

def sign(self, message, signing_algorithm):
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

ECDSAPrivateKey.sign = sign
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
print(port, flush=True)
for order in sys.stdin:
    if order == "stop\\n":
        server.stop()
    else:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        server.get_host_and_port()
    print("done", flush=True)
"""
REGION = "eu-central-1"


class Moto:
    """`tell` stops it from listening, or starts it again; its keys are in the memory of its process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def open_case(folder: Path) -> Iterator[Far]:
    secret = secrets.token_hex(20)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        moto = Moto()
        try:
            client = boto3.client("kms", region_name=REGION, endpoint_url=moto.url)
            key_id = client.create_key(KeySpec="ECC_SECG_P256K1", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            address = address_of(point_of(client.get_public_key(KeyId=key_id)["PublicKey"]))
            settings = {"kind": "aws_kms", "address": address, "key_id": key_id, "region": REGION, "endpoint": moto.url}
            yield Far(
                aws_kms,
                folder,
                address,
                settings,
                (secret,),
                lambda: moto.tell("stop"),
                lambda: moto.tell("start"),
            )
            client.close()
        finally:
            moto.stop()
