"""An order that trades through a key in another process: nothing changes but the section [wallet] of the settings."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import SECRET_FILES, isthmus, started, variant

from agent.domain.events import OrderApproved, OrderFilled
from agent.domain.plan import SwapBatch
from agent.journal.sqlite import SqliteJournal

pytestmark = pytest.mark.xdist_group("commands")


def ready(signer: "subprocess.Popen[str]") -> str:
    """What it says when it answers."""
    assert signer.stdout is not None
    first = signer.stdout.readline()
    assert "signs for chains" in first, first + signer.communicate(timeout=20)[1]
    return first


@pytest.fixture
def full_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sandbox of its own, of whose coins nobody has sold any: so large an order must find them all."""
    home = tmp_path_factory.mktemp("signer") / "box"
    up = isthmus("sandbox", "up", "--home", home, "--hours", "1", "--json", at=home.parent)
    assert up.code == 0, up
    yield home
    assert isthmus("sandbox", "down", "--home", home, at=home.parent).code == 0


def test_an_order_trades_through_the_signer_process(full_box: Path, tmp_path: Path) -> None:
    box, safe, desk = full_box, tmp_path / "safe", tmp_path / "desk"
    safe.mkdir()
    desk.mkdir()
    variant(box, safe)  # the signer has the keystore, the password and settings of its own
    section = re.search(r"\[wallet\]\n(?:[a-z_]+ = .*\n)+", (box / "isthmus.toml").read_text())
    assert section is not None
    address = isthmus("keys", "list", "--keystore", safe / "keystore", "--json", at=safe).json[0]["address"]
    place = tmp_path / "run" / "signer.sock"
    far = f'[wallet]\nkind = "process"\naddress = "{address}"\nsocket = "{place}"\n'
    variant(box, desk, (section[0], far))
    for path in (*(desk / "keystore").iterdir(), desk / "wallet.password"):  # the agent has neither key nor password
        path.unlink()
    absent = isthmus("order", "submit", "ETH/USDT", "--side", "sell", "--qty", "1", "--json", at=desk)
    assert absent.code == 4, absent
    assert "start it: isthmus signer" in absent.json["error"]
    signer = started("signer", "--socket", place, "--password", "file:wallet.password", at=safe)
    try:
        assert address in ready(signer)
        checks = {check["name"]: check for check in isthmus("doctor", "--json", at=desk).json["checks"]}
        assert (checks["wallet"]["level"], address in checks["wallet"]["text"]) == ("ok", True), checks["wallet"]
        listed = {row["kind"]: row for row in isthmus("keys", "list", "--json", at=desk).json}
        assert (listed["process"]["health"], listed["process"]["used_by"]) == ("", "wallet")
        command = ("order", "submit", "ETH/USDT", "--side", "sell", "--qty", "70", "--slippage-bps", "300", "--json")
        done = isthmus(*command, at=desk)
        assert done.code == 0, done
    finally:
        signer.terminate()
        out, err = signer.communicate(timeout=20)
    assert signer.returncode == 0, out + err
    journal = SqliteJournal(desk / "journal.sqlite", read_only=True)
    events = [record.event for record in journal.read()]
    journal.close()
    plans = [event.approved.plan for event in events if isinstance(event, OrderApproved)]
    chain = {plan.order_id for plan in plans if isinstance(plan, SwapBatch)}
    filled = {event.fill.order_id for event in events if isinstance(event, OrderFilled)}
    assert chain, "the pools had a part in it"
    assert chain <= filled
    log = (safe / "signer.log").read_text()
    assert log.count('"signature_given"') >= 2
    word = (safe / "wallet.password").read_text().strip()
    files = [path for path in desk.rglob("*") if path.is_file() and path.name not in SECRET_FILES]
    assert not [path for path in (*files, safe / "signer.log") if word.encode() in path.read_bytes()]
