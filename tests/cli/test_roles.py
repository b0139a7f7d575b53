"""`keys roles` and a demo through a role: what the owners must sign, and what the chain says against the settings."""

import json
from pathlib import Path

import pytest
from cli_kit import isthmus
from test_demo import holds

pytestmark = pytest.mark.chain
RULES = """
[[policy]]
name = "sell a little"
effect = "allow"
acts = ["swap"]
give = ["WETH"]
amount_max = "3"

[[policy]]
name = "what swaps need"
effect = "allow"
acts = ["approve", "permit", "anchor"]
"""


def test_a_demo_through_a_role_and_then_other_rules(tmp_path: Path) -> None:
    """What the settings say is what the contract allows; when they change, nothing trades until the owners have signed."""
    try:
        done = isthmus("demo", "--json", "--account", "role", "--slices", "2", "--every", "1s", "--keep", at=tmp_path)
        assert done.code == 0, done
        holds(done.json, 1)
        told = done.json["account"]
        assert (told["custody"], told["kind"]) == ("role", "role")
        assert told["gas_used"] == sum(one["gas_used"] for one in told["transactions"]) > 0
        assert all(one["sent_ms"] > 0 and one["mined_ms"] > 0 for one in told["transactions"])
        config = tmp_path / ".isthmus/demo/isthmus.toml"
        assert isthmus("keys", "roles", "check", "--config", config, at=tmp_path).code == 0
        nothing = isthmus("keys", "roles", "setup", "--config", config, at=tmp_path)
        assert "nothing is to be done" in nothing.out
        config.write_text(config.read_text() + RULES)
        doctor = isthmus("doctor", "--config", config, "--json", at=tmp_path)
        assert "uniswap role" in doctor.out
        differs = isthmus("keys", "roles", "check", "--config", config, "--json", at=tmp_path)
        assert differs.code == 3
        assert any("conditions on 0x3593564c" in why for why in differs.json["differences"])
        refused = isthmus("order", "submit", "ETH/USDT", "--side", "sell", "--qty", "1", "--config", config, at=tmp_path)
        assert refused.code == 4
        assert "`isthmus keys roles setup` says what the Safe's owners must sign" in refused.err
        written = isthmus("keys", "roles", "setup", "--out", "batch.json", "--config", config, "--json", at=tmp_path).json
        batch = json.loads((tmp_path / "batch.json").read_text())
        assert (batch, len(batch["transactions"])) == (written["batch"], len(written["steps"]))
        assert {"version", "chainId", "meta", "transactions"} <= batch.keys()
        assert {"to", "value", "data"} <= batch["transactions"][0].keys()
        carried = isthmus("keys", "roles", "setup", "--sandbox", "--config", config, at=tmp_path)
        assert carried.code == 0, carried
        assert isthmus("keys", "roles", "check", "--config", config, at=tmp_path).code == 0
    finally:
        isthmus("sandbox", "down", "--home", tmp_path / ".isthmus/demo", at=tmp_path)


def test_without_a_role_there_is_nothing_to_set_up(tmp_path: Path) -> None:
    (tmp_path / "isthmus.toml").write_text("")
    done = isthmus("keys", "roles", "check", at=tmp_path)
    assert done.code == 2
    assert 'no such venue has account = "role"' in done.err


def test_a_demo_from_a_smart_account(tmp_path: Path) -> None:
    done = isthmus("demo", "--json", "--account", "erc4337", "--slices", "2", "--every", "1s", at=tmp_path)
    assert done.code == 0, done
    holds(done.json, 1)
    assert done.json["account"]["kind"] == "erc4337"
