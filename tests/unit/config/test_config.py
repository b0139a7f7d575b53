"""The settings file: every key known, secrets by reference only, and every mistake named with its place and its fix."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.app import default_config, is_local, live_venues, refuse_unarmed
from agent.cli.templates import TEMPLATE
from agent.config import load, venue_kinds
from agent.domain.errors import ConfigError, RefusedError

ADDRESS = "0x" + "11" * 20
GOOD = f"""
account = "main"
[wallet]
keystore = "main"
password = "env:PASSWORD"
[venues.binance]
kind = "ccxt_exchange"
exchange = "binance"
url = "http://127.0.0.1:1"
ws_url = "ws://127.0.0.1:1"
api_key = "public"
secret = "env:SECRET"
symbols = ["ETH/USDT"]
groups = {{ ETH = "ETH", USDT = "USDT" }}
[venues.uniswap]
kind = "uniswap"
rpc_url = "http://127.0.0.1:2/path?with=key"
chain_id = 31337
wallet = "{ADDRESS}"
contracts = {{ universal_router = "{ADDRESS}" }}
tokens = [
  {{ symbol = "WETH", address = "{ADDRESS}", decimals = 18, group = "ETH" }},
  {{ symbol = "USDT", address = "0x{"22" * 20}", decimals = 6 }},
]
pools = [{{ protocol = "v3", base = "WETH", quote = "USDT", fee_pips = 500, address = "0x{"33" * 20}" }}]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "isthmus.toml"
    path.write_text(text)
    return path


def test_good_settings(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD))
    assert set(loaded.venues) == {"binance", "uniswap"}
    assert {market for section in loaded.venues.values() for market in section.markets()} == {"ETH/USDT"}
    assert loaded.home == tmp_path / ".isthmus"
    assert live_venues(loaded) == []
    assert "with=key" not in repr(loaded.venues["uniswap"])
    assert load(loaded.path, with_venues=False).venues == {}
    assert load(loaded.path).digest == loaded.digest


def test_the_template_is_good_and_trades_nothing(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, TEMPLATE))
    assert loaded.venues == {}
    assert not loaded.settings.armed
    assert not loaded.rules(live=True).limits.live_armed


def test_every_comment_of_the_template_is_good_too(tmp_path: Path) -> None:
    """With its examples switched on and filled in, nothing in it is unknown."""
    lines = [line.removeprefix("# ") if line.startswith(("# [", "# ")) and ("=" in line or "[" in line or "]" in line) else line
             for line in TEMPLATE.splitlines() if not line.startswith("# Isthmus") and not line.startswith("# (env")]  # fmt: skip
    text = "\n".join(lines).replace("https://…", "https://node.example/key").replace('"0x…"', f'"{ADDRESS}"')
    text = text.replace('rpc_url_second = "https://node', 'rpc_url_second = "https://other').replace(
        'private_rpc_url = "https://node', 'private_rpc_url = "https://relay'
    )
    text = text.replace(f'symbol = "USDT", address = "{ADDRESS}"', f'symbol = "USDT", address = "0x{"22" * 20}"')
    loaded = load(written(tmp_path, text.replace("env:…, file:…, keyring:…", "")))
    assert set(loaded.venues) == {"binance", "uniswap"}
    assert live_venues(loaded) == ["binance", "uniswap"]


WRONG = {
    "unknown key": ("account = ", "acount = ", "isthmus.toml: unknown key acount; did you mean account"),
    "unknown key that resembles nothing": ("account = ", "zzz = 1\naccount = ", "unknown key zzz; remove it"),
    "unknown key inside": ("[wallet]", "[risk]\ncolar_bps = 5\n[wallet]", "unknown key risk.colar_bps; did you mean collar_bps"),
    "unknown key of a venue": ("chain_id = ", "chainid = ", "venues.uniswap: unknown key chainid; did you mean chain_id"),
    "unknown key of a pool": ("fee_pips = 500", "fee_pip = 500", "unknown key pools.0.fee_pip; did you mean fee_pips"),
    "wrong type": (
        "[wallet]",
        '[risk]\ncollar_bps = "5"\n[wallet]',
        "risk.collar_bps: Input should be a valid integer; correct it",
    ),
    "out of range": ("[wallet]", "[risk]\ncollar_bps = 0\n[wallet]", "risk.collar_bps: .*greater than or equal to 1"),
    "a number that would freeze": ("[wallet]", '[risk]\ngas_fee_cap_gwei = "1e1000000"\n[wallet]', "not a plain decimal number"),
    "wrong durability": ("account = ", 'durability = "maybe"\naccount = ', "durability: .*'process' or 'power'"),
    "not TOML": ("[wallet]", "[wallet", "is not valid TOML: .*line"),
    "unknown kind": ('kind = "uniswap"', 'kind = "unswap"', 'there is no kind "unswap"; did you mean uniswap'),
    "unknown kind that resembles nothing": ('kind = "uniswap"', 'kind = "x"', 'there is no kind "x"; it is one of ccxt_exchange'),
    "a kind that is a path": ('kind = "uniswap"', 'kind = "../../etc"', "there is no kind"),
    "no kind": ('kind = "uniswap"\n', "", "venues.uniswap: kind is missing; add kind"),
    "odd name of a venue": ("[venues.uniswap]", '[venues."a b"]', "letters, digits and _"),
    "missing": ("chain_id = 31337", "", "venues.uniswap: chain_id is missing; add it"),
    "wrong address": (f'wallet = "{ADDRESS}"', 'wallet = "0x12"', "wallet: '0x12' is not an address"),
    "a secret in the open": ('secret = "env:SECRET"', 'secret = "hunter2"', "never write the secret itself"),
    "half a key": ('api_key = "public"', "", "api_key and secret belong together"),
    "half an address": ('url = "http://127.0.0.1:1"\n', "", "ws_url without url would leave the orders at the real exchange"),
    "an odd node": ("http://127.0.0.1:2/path?with=key", "ftp://x", "rpc_url is not an address"),
}


@pytest.mark.parametrize(("old", "new", "words"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named_with_place_and_fix(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=words) as caught:
        load(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_two_venues_never_share_a_wallet_on_a_chain(tmp_path: Path) -> None:
    section = GOOD[GOOD.index("[venues.uniswap]") :]
    with pytest.raises(ConfigError, match=r"venues.second and venues.uniswap share a wallet"):
        load(written(tmp_path, GOOD + section.replace("venues.uniswap", "venues.second")))
    load(written(tmp_path, GOOD + section.replace("venues.uniswap", "venues.second").replace("31337", "31338")))


@pytest.mark.parametrize("account", ["", "a:b", "a b", "x" * 33])
def test_an_account_is_a_plain_name(account: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="account"):
        load(written(tmp_path, GOOD.replace('account = "main"', f'account = "{account}"')))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*No such file.*`isthmus init` writes one"):
        load(tmp_path / "none.toml")
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match=r"larger than .*this is no settings file"):
        load(huge)
    huge.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(huge)
    huge.write_bytes(b"a = " + b"[" * 5_000)
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(huge)


def test_arming_takes_the_file_and_the_command(tmp_path: Path) -> None:
    live = GOOD.replace('url = "http://127.0.0.1:1"\nws_url = "ws://127.0.0.1:1"\n', "")
    for armed, said, is_allowed in ((False, False, False), (False, True, False), (True, False, False), (True, True, True)):
        loaded = load(written(tmp_path, f"armed = {str(armed).lower()}\n{live}"))
        assert live_venues(loaded) == ["binance"]
        assert loaded.rules(live=said).limits.live_armed is is_allowed
        if is_allowed:
            refuse_unarmed(loaded, live=said)
        else:
            with pytest.raises(RefusedError, match=r"VENUE_NOT_ARMED: binance .*say --live"):
                refuse_unarmed(loaded, live=said)


def test_only_this_machine_is_local(tmp_path: Path) -> None:
    for address, expected in (("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("127.0.0.1.example:1", False)):
        section = load(written(tmp_path, GOOD.replace("127.0.0.1:2", address))).venues["uniswap"]
        assert is_local(section) is expected, address


def test_where_settings_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISTHMUS_CONFIG", raising=False)
    assert default_config() == Path("isthmus.toml")
    for place in (".isthmus/demo/isthmus.toml", ".isthmus/isthmus.toml", "isthmus.toml"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).touch()
        assert default_config() == Path(place)
    monkeypatch.setenv("ISTHMUS_CONFIG", "other.toml")
    assert default_config() == Path("other.toml")


def test_kinds_are_found_without_importing_them() -> None:
    assert {"ccxt_exchange", "uniswap"} <= set(venue_kinds())
    told = (
        "import sys; from agent.config import venue_kinds; venue_kinds(); print([m for m in ('ccxt', 'web3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
