"""Three parties in three processes make one key and sign with it, and two go on when the third is gone."""

from collections.abc import Iterator

import pytest
from parties import MESSAGE, assert_signed, engine
from separate import Key, Party, ask, begin

pytestmark = [pytest.mark.xdist_group("threshold"), pytest.mark.timeout(600)]


@pytest.fixture
def processes(group: list[engine.KeyShare]) -> Iterator[dict[int, Party]]:
    parties = {share.party: begin(share.party, bytes(share.to_bytes())) for share in group}
    yield parties
    for one in parties.values():
        one.pipe.close()
        one.process.join(10)
        one.process.kill()


def test_three_processes_make_a_key_and_two_of_them_sign(processes: dict[int, Party], group: list[engine.KeyShare]) -> None:
    keys = ask(processes, lambda _: ("keygen", 200))
    (key,) = set(keys.values())
    assert isinstance(key, Key)
    assert key.address != group[0].address
    processes[1].process.kill()
    signers = (0, 2)
    both = {party: processes[party] for party in signers}
    ask(both, lambda _: ("presign", 201, signers))
    partials = ask(both, lambda _: ("sign", 201, MESSAGE))
    signed = ask(both, lambda party: ("combine", 201, {other: partials[other] for other in signers if other != party}))
    (signature,) = set(signed.values())
    assert isinstance(signature, bytes)
    assert_signed(signature, key)
