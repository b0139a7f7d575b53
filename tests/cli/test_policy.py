"""`isthmus policy`: what it says is what the key does; it reads what people give it strictly, and touches nothing."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, isthmus
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from agent.config import PolicyRule, load
from agent.policies import policy_of
from agent.venues.uniswap.pins import LOOK_EVERY_BLOCKS

ROOT = Path(__file__).parents[2]
WALLET, ROUTER, PERMIT2 = (
    "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23",
    "0x" + "a1" * 20,
    "0x000000000022D473030F116dDEE9F6B43aC78BA3",
)
DEADLINE_S = int(time.time()) + 1_800  # the key refuses what stays valid for longer than an hour
WETH, USDT, USDC = ("0x" + pair * 20 for pair in ("b1", "b2", "b3"))
SETTINGS = f"""
[venues.pools]
kind = "uniswap"
rpc_url = "http://127.0.0.1:1"
chain_id = 31337
wallet = "{WALLET}"
contracts = {{ universal_router = "{ROUTER}", v2_factory = "0x{"0f" * 20}" }}
tokens = [
  {{ symbol = "WETH", address = "{WETH}", decimals = 18, group = "ETH" }},
  {{ symbol = "USDT", address = "{USDT}", decimals = 6 }},
  {{ symbol = "USDC", address = "{USDC}", decimals = 6 }},
]
pools = [{{ protocol = "v2", base = "WETH", quote = "USDT", address = "0x{"0e" * 20}" }}]
"""
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
RULES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "isthmus.toml").write_text(SETTINGS + RULES)
    return tmp_path


def swap(give: str, receive: str, amount: int, *, to: str = WALLET, times: int = 1, ends_s: int = DEADLINE_S) -> dict[str, Any]:
    one = encode(["address", "uint256", "uint256", "address[]", "bool"], [to, amount, 1, [give, receive], True])
    data = bytes.fromhex("3593564c") + encode(["bytes", "bytes[]", "uint256"], [b"\x08" * times, [one] * times, ends_s])
    return call(ROUTER, data)


def approve(token: str, spender: str, amount: int) -> dict[str, Any]:
    return call(token, bytes.fromhex("095ea7b3") + encode(["address", "uint256"], [spender, amount]))


def call(to: str, data: bytes) -> dict[str, Any]:
    return {"chain_id": 31337, "to": to, "data": "0x" + data.hex(), "gas_limit": "500000", "gas_fee_max": "1000000000"}


def check(here: Path, request: Any, *more: str) -> Done:
    (here / "request.json").write_text(request if isinstance(request, str) else json.dumps(request))
    return isthmus("policy", "check", "request.json", *more, at=here)


ETH = 10**18
CASES: Sequence[tuple[str, Any, str, str]] = [
    # what it is, the request, the rule that decides (empty: none), part of why it is refused (empty: it is signed)
    ("within", swap(WETH, USDT, 10 * ETH), "sell ETH", ""),
    ("too much at once", swap(WETH, USDT, 10 * ETH + 1), "sell ETH", "allows 10 WETH at once, this is 10.000000000000000001 WETH"),
    ("too much in the window", swap(WETH, USDT, 9 * ETH, times=3), "sell ETH", "25 WETH are left, this takes 27 WETH"),
    ("forbidden first", swap(WETH, USDC, ETH), "no dollars of the other kind", "forbids to swap WETH for USDC"),
    ("no rule", swap(USDT, WETH, ETH), "", "no rule allows to swap USDT for WETH"),
    ("permission", approve(WETH, PERMIT2, 5), "what swaps need", ""),
    ("taking back", call(WALLET, b""), "", ""),
]


@pytest.mark.parametrize(("request_", "rule", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_request_is_explained(here: Path, request_: Any, rule: str, why: str) -> None:
    done = check(here, request_, "--json")
    assert done.code == (3 if why else 0), done
    assert done.json["would_sign"] == (not why)
    assert why in (done.json["refused"] or "")
    assert {one["rule"] for one in done.json["acts"]} == {rule or None}


def test_people_read_the_same(here: Path) -> None:
    for _, request, rule, why in CASES[:2]:
        told = check(here, request)
        flat = " ".join(told.out.split())
        assert rule in flat
        assert (why in flat) if why else ("the key would sign it for pools" in flat)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (swap(WETH, USDT, ETH, to="0x" + "66" * 20), "which is not the owner"),
        (approve(WETH, "0x" + "66" * 20, 5), "only Permit2"),
        (approve(WETH, PERMIT2, 2**256 - 1), "unlimited approval"),
        (swap(WETH, USDT, ETH, ends_s=DEADLINE_S + 7_200), "sign for a shorter time"),
        (call(ROUTER, b"\xde\xad\xbe\xef" + bytes(40)), "selector 0xdeadbeef is not allowed"),
        (call("0x" + "77" * 20, b""), "is not on this key's list"),
        (swap(WETH, USDT, ETH) | {"gas_limit": "99000000"}, "gas limit"),
        (swap(WETH, USDT, ETH) | {"chain_id": 1}, "no venue of isthmus.toml is on chain 1"),
    ],
)
def test_no_rule_lifts_a_hard_one(here: Path, request_: Any, why: str) -> None:
    (here / "isthmus.toml").write_text(SETTINGS + '[[policy]]\nname = "all"\neffect = "allow"\n')
    done = check(here, request_)
    assert done.code == 3
    assert why in " ".join((done.out + done.err).split())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"chain_id": 1}', '{"primaryType": 5}', "nonsense", '{"chain_id":1,"to":"x","data":"zz"}']
)
def test_what_is_no_request_is_refused_in_one_line(here: Path, text: str) -> None:
    done = check(here, text)
    assert (done.code, done.out) in ((2, ""), (3, "")), done
    assert len(done.err.strip().splitlines()) == 1


def test_typed_data_is_read_as_wallets_write_it(here: Path) -> None:
    fields = {"PermitDetails": ["token address", "amount uint160", "expiration uint48", "nonce uint48"],
              "PermitSingle": ["details PermitDetails", "spender address", "sigDeadline uint256"],
              "EIP712Domain": ["name string", "chainId uint256", "verifyingContract address"]}  # fmt: skip
    types = {name: [dict(zip(("name", "type"), one.split(), strict=True)) for one in parts] for name, parts in fields.items()}
    details = {"token": WETH, "amount": 7, "expiration": DEADLINE_S, "nonce": 0}
    request = {
        "domain": {"name": "Permit2", "chainId": 31337, "verifyingContract": PERMIT2},
        "types": types,
        "primaryType": "PermitSingle",
        "message": {"details": details, "spender": ROUTER, "sigDeadline": DEADLINE_S},
    }
    done = check(here, request, "--json")
    assert done.code == 0, done
    assert [(one["act"], one["give"], one["rule"]) for one in done.json["acts"]] == [("permit", "WETH", "what swaps need")]
    request["message"]["spender"] = "0x" + "66" * 20  # type: ignore[index]
    assert check(here, request).code == 3


def test_show_names_every_rule_and_limit(here: Path) -> None:
    done = isthmus("policy", "show", at=here)
    assert done.code == 0, done
    flat = " ".join(done.out.split())
    for part in (
        "pools: chain 31337",
        to_checksum_address(ROUTER),
        "tokens WETH, USDT, USDC",
        "sell ETH: swap, giving WETH, receiving USDT",
        "0 of 25 WETH",
    ):
        assert part in flat, part
    told = isthmus("policy", "show", "--json", at=here).json
    assert [rule["name"] for rule in told["rules"]] == told["venues"]["pools"]["rules"]
    (here / "isthmus.toml").write_text(SETTINGS)
    assert "no rules of your own" in isthmus("policy", "show", at=here).out


BAD = {
    'give = ["DAI"]': "no venue lists a token 'DAI'",
    'venues = ["kraken"]': "there is no venue 'kraken'",
    'amount_max = "1"': "name exactly one in give",
    'give = ["WETH"]\nwindow_max = "1"': "window_s and window_max belong together",
    'give = ["WETH"]\namount_max = "1e3"': "is not a plain decimal number",
    'acts = ["dance"]': "acts",
    'acts = ["transfer"]': "names whom they are to",
    'acts = ["transfer"]\nto = ["nobody"]': "neither an address nor an account of [treasury]",
    'effect = "deny"\nname = "x"\ngive = ["WETH"]\namount_max = "1"': "a rule that forbids has no amounts",
    'name = "twice"\neffect = "allow"\n[[policy]]\nname = "twice"': "is there twice",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text.replace("\n", " ")[:40])
def test_a_rule_that_makes_no_sense_is_refused_at_the_start(here: Path, text: str) -> None:
    head = "" if "name =" in text and "effect" in text else 'name = "r"\neffect = "allow"\n'
    tail = '\neffect = "allow"\n' if text.endswith('"twice"') else "\n"
    (here / "isthmus.toml").write_text(f"{SETTINGS}[[policy]]\n{head}{text}{tail}")
    done = isthmus("policy", "show", at=here)
    assert done.code == 2, done
    assert BAD[text] in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_rules_for_other_tokens_do_not_open_a_venue(here: Path) -> None:
    """With rules, what none of them allows is refused: also where none of them concerns the venue."""
    other = SETTINGS.replace("venues.pools", "venues.others").replace("31337", "5").replace('"USDC"', '"DAI"')
    (here / "isthmus.toml").write_text(SETTINGS + other + '[[policy]]\nname = "dai"\neffect = "allow"\ngive = ["DAI"]\n')
    loaded = load(here / "isthmus.toml")
    rules = policy_of(loaded, "pools", loaded.venues["pools"], WALLET, 31337).rules
    assert [rule.effect for rule in rules] == ["deny"]
    assert check(here, approve(WETH, PERMIT2, 1)).code == 3


def test_the_page_names_every_key_of_a_rule() -> None:
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))))
    assert named == set(PolicyRule.model_fields)
    assert f"every {LOOK_EVERY_BLOCKS} blocks" in PAGE


@pytest.mark.chain
def test_what_pin_prints_is_a_section_of_the_settings(box: Path, tmp_path: Path) -> None:
    printed = isthmus("policy", "pin", "--config", box / "isthmus.toml", at=tmp_path)
    assert printed.code == 0, printed
    (tmp_path / "isthmus.toml").write_text((box / "isthmus.toml").read_text() + "\n" + printed.out)
    pins = load(tmp_path / "isthmus.toml").venues["uniswap"].code_hashes
    assert pins == isthmus("policy", "pin", "--json", "--config", box / "isthmus.toml", at=tmp_path).json["venues"]["uniswap"]
    assert len(pins) > 5
