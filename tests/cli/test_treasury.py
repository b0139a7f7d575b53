"""`isthmus treasury`, `keys ticket` and `keys offline` as people use them: real processes, a real chain, two machines' folders."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import account_kit as kit
import pytest
from cli_kit import isthmus, started
from treasury_desk import HOT, PASSWORD, TreasuryDesk

from agent.keys.qr import parts_of

pytestmark = pytest.mark.chain
SECRETS = (PASSWORD, kit.key("owner").hex(), kit.key("hot").hex())


@pytest.fixture(scope="module")
def desk() -> Iterator[TreasuryDesk]:
    with kit.running() as chain:
        yield TreasuryDesk(chain)


@pytest.fixture(scope="module")
def here(desk: TreasuryDesk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    desk.settings(folder)
    return folder


def test_of_several_sweeps_at_once_one_moves_coins(desk: TreasuryDesk, here: Path) -> None:
    before = desk.usd(desk.safe)
    running = [started("treasury", "sweep", "--json", at=here) for _ in range(2)]
    said = [one.communicate(timeout=60) for one in running]
    for _ in range(200):
        if desk.usd(HOT) < 10**7:
            break
    assert 0 in [one.returncode for one in running], said
    assert all(one.returncode in (0, 3, 4) for one in running), said
    assert (desk.usd(HOT), desk.usd(desk.safe) - before, desk.nonce(HOT)) == (5 * 10**6, 5 * 10**6, 1)


def test_a_payment_from_cold_goes_out_as_a_file_and_comes_back_signed(desk: TreasuryDesk, here: Path, tmp_path: Path) -> None:
    held = desk.usd(HOT)
    asked = isthmus("treasury", "pay", "cold", "USD", "2", "hot", "--name", "march", "--json", at=here)
    assert asked.code == 0, asked
    ticket = asked.json["id"]
    assert (asked.json["state"], asked.json["meaning"]) == ("waiting", [f"transfer 2 USD to {HOT.lower()}"])
    out = isthmus("keys", "ticket", "export", ticket, "request.json", at=here)
    assert out.code == 0, out
    assert "transfer 2 USD" in out.out

    there = tmp_path / "there"
    there.mkdir()
    text = desk.settings(there).read_text().replace(desk.rpc.url, "http://127.0.0.1:1")
    (there / "isthmus.toml").write_text(text)
    desk.keep(there, "safe key")
    (there / "request.json").write_bytes((here / "request.json").read_bytes())
    words = ["--out", "signature.json", "--key", "safe-key", "--password", "file:password"]
    no = isthmus("keys", "offline", "sign", "request.json", *words, at=there, stdin="n\n")
    assert (no.code, "nothing was signed" in no.err) == (3, True), no
    assert f"transfer 2 USD to {HOT.lower()}" in no.out
    yes = isthmus("keys", "offline", "sign", "request.json", *words, at=there, stdin="y\n")
    assert yes.code == 0, yes

    (here / "signature.json").write_bytes((there / "signature.json").read_bytes())
    done = isthmus("keys", "ticket", "import", "signature.json", "--json", at=here)
    assert (done.code, done.json["state"] in ("sent", "done")) == (0, True), done
    if done.json["state"] == "sent":  # Anvil mines a moment after it answers
        assert [one["state"] for one in isthmus("treasury", "poll", "--json", at=here).json] == ["done"]
    assert desk.usd(HOT) - held == 2 * 10**6
    files = [path.read_text() for path in (here / "request.json", there / "signature.json")]
    for text in (asked.out, out.out, yes.out, done.out, *files):
        assert PASSWORD not in text
        assert kit.key("safe key").hex() not in text
    for path in (here / ".isthmus").rglob("*"):
        if path.is_file() and path.suffix != ".sqlite":
            assert not [
                word for word in (PASSWORD, kit.key("owner").hex(), kit.key("hot").hex()) if word.encode() in path.read_bytes()
            ]
    twice = isthmus("keys", "ticket", "import", "signature.json", at=here)
    assert (twice.code, twice.err.count("\n")) == (3, 1), twice


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_killed_at_any_moment_a_sweep_moves_coins_once(desk: TreasuryDesk, tmp_path: Path) -> None:
    desk.settings(tmp_path)
    killed = 0
    for tenth in range(4, 26):
        desk.deployer.resume()
        desk.deployer.invoke(desk.token, "mint(address,uint256)", HOT, 10**7 - desk.usd(HOT))
        desk.deployer.settle()
        before = desk.usd(desk.safe)
        running = started("treasury", "sweep", at=tmp_path)
        try:
            running.communicate(timeout=tenth / 10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            killed += 1
        again = isthmus("treasury", "sweep", "--json", at=tmp_path)
        assert again.code == 0, again
        waiting = isthmus("treasury", "poll", "--json", at=tmp_path).json
        assert all(one["state"] == "done" for one in waiting), waiting
        assert (desk.usd(HOT), desk.usd(desk.safe) - before) == (5 * 10**6, 5 * 10**6), tenth
    assert killed > 5


def test_codes_are_drawn_and_what_a_scanner_reads_is_taken(desk: TreasuryDesk, here: Path) -> None:
    pytest.importorskip("segno", reason="QR codes need isthmus[qr]")
    ticket = isthmus("treasury", "pay", "paper", "USD", "1", "cold", "--name", "april", "--json", at=here).json["id"]
    out = isthmus("keys", "ticket", "export", ticket, "april.json", "--qr", "--json", at=here)
    assert out.code == 0, out
    assert [Path(name).exists() for name in (here / one for one in out.json["pictures"])] == [True]
    (here / "scanned.txt").write_text("\n".join(parts_of((here / "april.json").read_bytes())))
    desk.keep(here, "paper")
    words = ["--out", "april.sig", "--key", "paper", "--password", "file:password", "--yes", "--json"]
    signed = isthmus("keys", "offline", "sign", "scanned.txt", *words, at=here)
    assert (signed.code, signed.json["ticket"]) == (0, ticket), signed


def test_what_is_shown(desk: TreasuryDesk, here: Path) -> None:
    keys = isthmus("keys", "list", at=here)
    assert keys.code == 0, keys
    for text in ("cold", "paper", "people", "keystore", desk.safe):
        assert text in keys.out
    shown = isthmus("treasury", "show", "--json", at=here)
    assert shown.code == 0, shown
    tiers = {row["account"]: row["tier"] for row in shown.json["balances"]}
    assert tiers == {"hot": "hot", "cold": "cold", "paper": "cold"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("treasury", "pay", "warm", "USD", "2", "hot", "--name", "x"), 2, "there is no account 'warm'"),
        (("treasury", "refuse", "0123456789abcdef", "why"), 3, "there is no ticket"),
        (("keys", "ticket", "import", "nowhere.json"), 2, "cannot read nowhere.json"),
    ],
)
def test_what_cannot_be_says_what_to_do(here: Path, words: tuple[str, ...], code: int, told: str) -> None:
    done = isthmus(*words, at=here)
    assert (done.code, done.err.count("\n")) == (code, 1), done
    assert told in done.err
