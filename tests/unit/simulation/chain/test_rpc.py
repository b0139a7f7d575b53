"""Addresses and call data that are known from public chains."""

import pytest

from agent.simulation.chain.deploy import CREATE2_DEPLOYER, to_units
from agent.simulation.chain.rpc import calldata, create2_address, created_address, dev_account, split_types


def test_the_development_accounts_are_the_usual_ones() -> None:
    assert dev_account(0).address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert dev_account(1).address == "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


def test_created_addresses_follow_from_account_and_nonce() -> None:
    deployer = dev_account(0).address
    assert created_address(deployer, 0) == "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert created_address(deployer, 1) == "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
    # nonces at which their own encoding grows
    assert len({created_address(deployer, nonce) for nonce in (127, 128, 255, 256, 65_535, 65_536)}) == 6


def test_create2_is_eip_1014() -> None:
    zero = "0x" + "00" * 20
    assert create2_address(zero, bytes(32), b"\x00") == "0x4D1A2e2bB4F88F0250f26Ffff098B0b30B26BF38"
    deadbeef = "0xdeadbeef00000000000000000000000000000000"
    assert create2_address(deadbeef, bytes(32), b"\x00") == "0xB928f69Bb1D91Cd65274e3c79d8986362984fDA3"
    assert len(CREATE2_DEPLOYER) == 42


def test_calldata_is_selector_and_arguments() -> None:
    data = calldata("transfer(address,uint256)", "0x" + "00" * 19 + "01", 255)
    assert data == "0xa9059cbb" + "01".rjust(64, "0") + "ff".rjust(64, "0")


def test_types_split_at_the_top_level_only() -> None:
    assert split_types("") == []
    assert split_types("(address,(uint24,int24)[]),bool") == ["(address,(uint24,int24)[])", "bool"]


def test_amounts_are_read_exactly() -> None:
    assert to_units("1.5", 18) == 15 * 10**17
    assert to_units("100.000001", 6) == 100_000_001
    for text in ("1.0000001", "-1", "NaN", "Infinity", "9" * 61, "1e70000000"):
        with pytest.raises(ValueError, match="is not an amount"):
            to_units(text, 6)
