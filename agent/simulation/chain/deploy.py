"""Builds the sandbox's world on an empty chain: tokens, Uniswap v2, v3, v4, Permit2, the UniversalRouter, and liquidity.

Everything is sent from the development mnemonic's first accounts in a fixed order, so every chain built by this module has
the same addresses (`deployments/31337.json`).
"""

import re
from collections.abc import Mapping

from eth_abi.abi import encode
from eth_abi.packed import encode_packed
from eth_utils.crypto import keccak

from agent.simulation.chain.artifacts import ArtifactError, bundle, own
from agent.simulation.chain.compile import permit2
from agent.simulation.chain.deployment import ZERO_ADDRESS, Deployment, Pool, Protocol, Token
from agent.simulation.chain.pools import UNLIMITED, add_v2, add_v3, add_v4, sort_currencies
from agent.simulation.chain.rpc import Rpc, Sender, create2_address, created_address, dev_account

DEPLOYER, MAKER, ARBITRAGEUR = 0, 1, 2  # accounts of the development mnemonic
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
PERMIT2_SALT = bytes.fromhex("0000000000000000000000000000000000000000d3af2663da51c10215000000")
CREATE2_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
CREATE2_FUNDER = "0x3fAB184622Dc19b6109349B94811493BF2a45362"  # signer of the presigned transaction that creates it
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
UNSUBSCRIBE_GAS = 300_000  # what v4's PositionManager grants a position's subscriber, as on mainnet
V3_POOLS, V4_POOLS = ((500, 10), (3000, 60), (10_000, 200)), ((500, 10), (3000, 60))  # (fee in pips, tick spacing)
MAKER_FUNDS = {"WETH": "60000", "USDT": "200000000"}
_AMOUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?", re.ASCII)
ARBITRAGEUR_FUNDS = {"WETH": "50000", "USDT": "150000000"}


def build_world(rpc: Rpc) -> Deployment:
    """Deploy everything on an empty chain and provide the liquidity; returns the address book.

    Raises RpcError when the chain refuses a transaction, ArtifactError when a contract cannot be had.
    """
    deployer = Sender(rpc, dev_account(DEPLOYER))
    maker = Sender(rpc, dev_account(MAKER))
    arbitrageur = Sender(rpc, dev_account(ARBITRAGEUR))
    _ensure_create2(rpc)
    tokens = _tokens(deployer)
    contracts = _contracts(deployer, tokens["WETH"].address)
    contracts["SandboxArbitrageur"] = arbitrageur.deploy(own("SandboxArbitrageur"), contracts["PoolManager"])
    deployer.settle()
    arbitrageur.settle()
    if not _has_code(rpc, PERMIT2):
        raise ArtifactError(f"Permit2 did not land on {PERMIT2}: its compiled bytecode differs; delete the cache")
    chain_id = deployer.chain_id
    deployment = Deployment(chain_id, tokens, contracts, _pools(tokens, contracts))
    fund(deployer, deployment, maker.address, MAKER_FUNDS, together=False)
    fund(deployer, deployment, contracts["SandboxArbitrageur"], ARBITRAGEUR_FUNDS, together=False)
    _provide_liquidity(maker, deployment)
    if str(rpc.call("web3_clientVersion")).lower().startswith("anvil"):
        rpc.call("anvil_setCode", MULTICALL3, rpc.call("eth_getCode", contracts["Multicall3"], "latest"))
    return deployment


def fund(deployer: Sender, deployment: Deployment, address: str, amounts: Mapping[str, str], *, together: bool = True) -> None:
    """Give `address` assets out of nothing: "ETH", "WETH" or a sandbox token, in whole units as text ("1.5").

    Raises ValueError for an unknown asset or an amount finer than the asset's unit.
    """
    for symbol, text in amounts.items():
        if symbol != "ETH" and symbol not in deployment.tokens:
            raise ValueError(f"the sandbox has no {symbol}; use ETH, {', '.join(deployment.tokens)}")
        units = to_units(text, 18 if symbol == "ETH" else deployment.tokens[symbol].decimals)
        if symbol == "ETH":
            deployer.send(address, "0x", gas=100_000, value=units)
            continue
        token = deployment.tokens[symbol].address
        if symbol == "WETH":
            deployer.invoke(token, "deposit()", value=units)
            deployer.invoke(token, "transfer(address,uint256)", address, units)
        else:
            deployer.invoke(token, "mint(address,uint256)", address, units)
    deployer.settle(together=together)


def to_units(text: str, decimals: int) -> int:
    """Whole units as text ("1.5") to the smallest unit, exactly; raises ValueError for anything else or anything finer."""
    match = _AMOUNT.fullmatch(text)
    whole, part = (match[1], (match[2] or "").rstrip("0")) if match else ("", "")
    if not match or len(part) > decimals:
        raise ValueError(f"{text[:40]!r} is not an amount with at most {decimals} decimals")
    return int(whole + part.ljust(decimals, "0"))


def _ensure_create2(rpc: Rpc) -> None:
    """The deterministic CREATE2 deployer: part of Anvil, created by its presigned transaction elsewhere."""
    if not _has_code(rpc, CREATE2_DEPLOYER):
        rpc.call("eth_sendRawTransaction", bundle().literals["Create2Deployer"])


def _has_code(rpc: Rpc, address: str) -> bool:
    return len(rpc.call("eth_getCode", address, "latest")) > 2


def _tokens(deployer: Sender) -> dict[str, Token]:
    return {
        "WETH": Token(deployer.deploy(bundle().contracts["WETH9"]), 18),
        "USDT": Token(deployer.deploy(own("SandboxTether")), 6),
        "USDC": Token(deployer.deploy(own("SandboxDollar")), 6),
    }


def _contracts(deployer: Sender, weth: str) -> dict[str, str]:
    """Constructor arguments in the order of the contracts' own deployment scripts."""
    code = bundle().contracts
    book: dict[str, str] = {"WETH9": weth}

    def put(name: str, *args: object) -> str:
        book[name] = deployer.deploy(code[name], *args)
        return book[name]

    factory_v2 = put("UniswapV2Factory", deployer.address)
    put("UniswapV2Router02", factory_v2, weth)
    factory_v3 = put("UniswapV3Factory")
    positions_v3 = put("NonfungiblePositionManager", factory_v3, weth, ZERO_ADDRESS)
    put("SwapRouter", factory_v3, weth)
    put("QuoterV2", factory_v3, weth)
    put("TickLens")
    manager = put("PoolManager", deployer.address)
    book["Permit2"] = _permit2(deployer)
    positions_v4 = put("PositionManager", manager, book["Permit2"], UNSUBSCRIBE_GAS, ZERO_ADDRESS, weth)
    put("V4Quoter", manager)
    put("StateView", manager)
    pair_hash = keccak(hexstr=code["UniswapV2Pair"].bytecode)
    pool_hash = keccak(hexstr=code["UniswapV3Pool"].bytecode)
    factories = (factory_v2, factory_v3, pair_hash, pool_hash)
    no_bridge = ZERO_ADDRESS
    put("UniversalRouter", (book["Permit2"], weth, *factories, manager, positions_v3, positions_v4, no_bridge))
    deployer.send(None, bundle().literals["Multicall3"], gas=3_000_000)
    book["Multicall3"] = created_address(deployer.address, deployer.nonce - 1)
    book["AuditAnchor"] = deployer.deploy(own("AuditAnchor"))
    return book


def _permit2(deployer: Sender) -> str:
    code = bytes.fromhex(permit2().bytecode[2:])
    deployer.send(CREATE2_DEPLOYER, "0x" + (PERMIT2_SALT + code).hex(), gas=4_000_000)
    address = create2_address(CREATE2_DEPLOYER, PERMIT2_SALT, code)
    if address != PERMIT2:
        raise ArtifactError(f"Permit2 would land on {address}, not {PERMIT2}: its compiled bytecode differs")
    return address


def _pools(tokens: dict[str, Token], contracts: dict[str, str]) -> tuple[Pool, ...]:
    """The pools that will exist, by the contracts' own address rules."""
    pair = sort_currencies(tokens["WETH"].address, tokens["USDT"].address)
    return (
        _pool("v2", pair, 3000, 0, address=_v2_address(contracts["UniswapV2Factory"], pair)),
        *(
            _pool("v3", pair, fee, spacing, address=_v3_address(contracts["UniswapV3Factory"], pair, fee))
            for fee, spacing in V3_POOLS
        ),
        *(_pool("v4", pair, fee, spacing, pool_id=_v4_id(pair, fee, spacing)) for fee, spacing in V4_POOLS),
    )


def _pool(
    protocol: Protocol, pair: tuple[str, str], fee_pips: int, tick_spacing: int, *, address: str = "", pool_id: str = ""
) -> Pool:
    return Pool(
        name=f"{protocol}-{fee_pips}",
        protocol=protocol,
        fee_pips=fee_pips,
        tick_spacing=tick_spacing,
        currency0=pair[0],
        currency1=pair[1],
        address=address,
        pool_id=pool_id,
    )


def _v2_address(factory: str, pair: tuple[str, str]) -> str:
    salt = keccak(encode_packed(["address", "address"], pair))
    return create2_address(factory, salt, bytes.fromhex(bundle().contracts["UniswapV2Pair"].bytecode[2:]))


def _v3_address(factory: str, pair: tuple[str, str], fee_pips: int) -> str:
    salt = keccak(encode(["address", "address", "uint24"], [*pair, fee_pips]))
    return create2_address(factory, salt, bytes.fromhex(bundle().contracts["UniswapV3Pool"].bytecode[2:]))


def _v4_id(pair: tuple[str, str], fee_pips: int, tick_spacing: int) -> str:
    key = [*pair, fee_pips, tick_spacing, ZERO_ADDRESS]
    return "0x" + keccak(encode(["address", "address", "uint24", "int24", "address"], key)).hex()


def _provide_liquidity(maker: Sender, deployment: Deployment) -> None:
    contracts = deployment.contracts
    spenders = ("UniswapV2Router02", "NonfungiblePositionManager", "Permit2")
    for symbol in ("WETH", "USDT"):
        token = deployment.tokens[symbol].address
        for spender in spenders:
            maker.invoke(token, "approve(address,uint256)", contracts[spender], UNLIMITED)
        maker.invoke(
            contracts["Permit2"],
            "approve(address,address,uint160,uint48)",
            token,
            contracts["PositionManager"],
            2**160 - 1,
            2**48 - 1,
        )
    for pool in deployment.pools:
        add = {"v2": add_v2, "v3": add_v3, "v4": add_v4}[pool.protocol]
        add(maker, deployment, pool)
    maker.settle()
