"""One fixture set, two chains: eth-tester over py-evm and eth-tester over Anvil behave alike."""

from collections.abc import Iterator

import pytest
from eth_account import Account
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import BlockNotFound, TransactionFailed, TransactionNotFound
from web3 import EthereumTesterProvider, Web3
from web3.contract import Contract

from agent.simulation.chain.anvil import start_anvil
from agent.simulation.chain.artifacts import own
from agent.simulation.chain.backend import ETH_TESTER_CHAIN_ID, AnvilBackend
from agent.simulation.chain.deployment import load_deployment
from agent.simulation.chain.world import ensure_world

pytestmark = pytest.mark.chain
USER = "0x00000000000000000000000000000000000000AA"
FEES = {"maxFeePerGas": 20 * 10**9, "maxPriorityFeePerGas": 10**9}


@pytest.fixture(params=["py-evm", "anvil"])
def tester(request: pytest.FixtureRequest) -> Iterator[EthereumTester]:
    if request.param == "py-evm":
        yield EthereumTester(PyEVMBackend())
        return
    backend = AnvilBackend()
    yield EthereumTester(backend)
    backend.close()


@pytest.fixture
def w3(tester: EthereumTester) -> Web3:
    return Web3(EthereumTesterProvider(tester))


@pytest.fixture
def tether(w3: Web3) -> Contract:
    artifact = own("SandboxTether")
    deployer = w3.eth.accounts[0]
    sent = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode).constructor().transact({"from": deployer})
    contract = w3.eth.contract(address=w3.eth.get_transaction_receipt(sent)["contractAddress"], abi=artifact.abi)
    contract.functions.mint(deployer, 1_000_000).transact({"from": deployer, "gas": 200_000})
    return contract


def test_a_token_moves_and_logs(w3: Web3, tether: Contract) -> None:
    sent = tether.functions.transfer(USER, 400).transact({"from": w3.eth.accounts[0], "gas": 200_000})
    receipt = w3.eth.get_transaction_receipt(sent)
    assert receipt["status"] == 1
    assert tether.functions.balanceOf(USER).call() == 400
    (event,) = tether.events.Transfer().get_logs(from_block=receipt["blockNumber"])
    assert event["args"]["value"] == 400
    assert w3.eth.get_transaction(sent)["hash"] == sent
    assert tether.functions.balanceOf(USER).call(block_identifier=receipt["blockNumber"] - 1) == 0


def test_snapshots_serve_more_than_once(tester: EthereumTester, tether: Contract, w3: Web3) -> None:
    snapshot = tester.take_snapshot()
    for amount in (5, 7):
        tether.functions.transfer(USER, amount).transact({"from": w3.eth.accounts[0], "gas": 200_000})
        assert tether.functions.balanceOf(USER).call() == amount
        tester.revert_to_snapshot(snapshot)
        assert tether.functions.balanceOf(USER).call() == 0


def test_time_travels_forward(tester: EthereumTester) -> None:
    before = tester.get_block_by_number("latest")["timestamp"]
    tester.time_travel(before + 3600)
    assert 3599 <= tester.get_block_by_number("latest")["timestamp"] - before <= 3602


def test_blocks_are_mined_by_hand(tester: EthereumTester) -> None:
    before = tester.get_block_by_number("latest")["number"]
    hashes = tester.mine_blocks(3)
    last = tester.get_block_by_number("latest")
    assert last["number"] == before + 3
    assert last["hash"] == hashes[-1]
    assert tester.get_block_by_hash(hashes[0])["number"] == before + 1


def test_a_refused_call_is_a_failed_transaction(tester: EthereumTester, w3: Web3, tether: Contract) -> None:
    call = {"from": w3.eth.accounts[1], "to": tether.address, "gas": 100_000}
    with pytest.raises(TransactionFailed):
        tester.call(call | {"data": tether.encode_abi("transfer", args=[USER, 1])})


def test_a_signed_transaction_waits_for_its_block(tester: EthereumTester, w3: Web3) -> None:
    account = Account.from_key("0x" + "11" * 32)
    w3.eth.send_transaction({"from": w3.eth.accounts[0], "to": account.address, "value": 10**18, "gas": 21_000})
    tester.disable_auto_mine_transactions()
    fields = {"chainId": w3.eth.chain_id, "nonce": 0, "to": USER, "value": 7, "gas": 21_000} | FEES
    raw = account.sign_transaction(fields).raw_transaction
    sent = w3.eth.send_raw_transaction(raw)
    assert w3.eth.get_balance(USER) == 0
    tester.mine_block()
    assert w3.eth.get_balance(USER) == 7
    assert w3.eth.get_transaction_receipt(sent)["status"] == 1


def test_what_is_not_there_is_said_so(tester: EthereumTester) -> None:
    with pytest.raises(TransactionNotFound):
        tester.get_transaction_by_hash("0x" + "22" * 32)
    with pytest.raises(BlockNotFound):
        tester.get_block_by_number(10_000)


def test_an_account_can_be_added(tester: EthereumTester) -> None:
    address = tester.add_account("0x" + "33" * 32)
    assert address in tester.get_accounts()
    funder = tester.get_accounts()[0]
    tester.send_transaction({"from": funder, "to": address, "value": 10**18, "gas": 21_000})
    tester.send_transaction({"from": address, "to": USER, "value": 3, "gas": 21_000})
    assert tester.get_balance(USER) == 3


def test_the_backend_drives_a_node_that_holds_the_whole_world() -> None:
    state, _ = ensure_world()
    node = start_anvil(load=state, chain_id=ETH_TESTER_CHAIN_ID)
    backend = AnvilBackend(node)
    try:
        w3 = Web3(EthereumTesterProvider(EthereumTester(backend)))
        router = load_deployment(31337).contracts["UniversalRouter"]
        assert len(w3.eth.get_code(Web3.to_checksum_address(router))) > 1000
        assert w3.eth.chain_id == Web3(Web3.HTTPProvider(node.url)).eth.chain_id
    finally:
        backend.close()
        node.stop()
