"""The settings files that the program writes: one commented template for people, one that points to a running sandbox."""

from collections.abc import Mapping
from pathlib import Path

from agent.domain.errors import UsageError
from agent.simulation.world import Info

MARK = "# written by `isthmus sandbox`"
ROLE_GAS_LIMIT_MAX = 10_000_000  # the contract that reads every swap of a role takes its share

TEMPLATE = """\
# Isthmus. Every key is checked; unknown keys are refused. Secrets never stand here: name where they lie instead
# (env:NAME, file:PATH with mode 600, keyring:SERVICE/NAME).

account = "main"            # your name for this set of positions
home = ".isthmus"           # journal, keystore and logs, relative to this file
durability = "process"      # process: survives kill -9;  power: also a power cut, about 0.1 ms slower per order
armed = false               # live venues trade only if this is true AND the command says --live

[risk]                      # one order may not exceed these, in whole coins
order_value_max = { USDT = "25000" }
order_volume_max = { ETH = "10" }
collar_bps = 100            # a limit may lie at most this far from the trusted price
duplicate_window_s = 5      # the same wish again within it is refused
gas_fee_cap_gwei = "200"    # absolute

[execution]
slippage_bps = 10           # how much worse than its quote a child order may trade
deadline_s = 60             # how long an on-chain batch may wait for its block
gas_tip_gwei = "1"

# How often and how patiently the journal is held against venues and chains: docs/reconciliation.md.
# [reconcile]
# position_check_interval_secs = 30

# How venues are judged by their past, and what routing charges for it: docs/scorecard.md.
# [scorecard]
# is_charged = true

# A desk's journal: PostgreSQL instead of the file, and a lease that lets one agent of the desk write.
# [journal]
# url = "postgresql://desk@127.0.0.1/isthmus"
# password = "env:JOURNAL_PASSWORD"

# The key that signs on chain: `isthmus keys new main` makes it. Other places where a key can lie: docs/keys.md.
# [wallet]
# keystore = "main"
# password = "ask"          # or env:…, file:…, keyring:…

# Coins between this wallet and cold accounts, with tickets for what waits for people: docs/treasury.md.
# [treasury.accounts.cold]
# kind = "safe"             # or offline, fireblocks, wallet
# venue = "uniswap"
# tier = "cold"
# address = "0x…"

# A centralised exchange, through ccxt.
# [venues.binance]
# kind = "ccxt_exchange"
# exchange = "binance"
# api_key = "…"             # the public half; give it no right to withdraw
# secret = "env:BINANCE_SECRET"
# symbols = ["ETH/USDT"]
# groups = { ETH = "ETH", USDT = "USDT" }
# orders_over = "websocket"   # orders over Binance's WebSocket API, which is faster than "rest"

# Uniswap on one chain.
# [venues.uniswap]
# kind = "uniswap"
# rpc_url = "https://…"
# rpc_url_second = "https://…"   # another provider: what the two do not agree on is not believed
# chain_id = 1
# wallet = "0x…"
# account = "safe"          # the tokens are in a Safe 1.4.1 that the wallet owns; others: "role", "erc4337" (docs/accounts.md)
# safe = "0x…"
# contracts = { universal_router = "0x…", weth = "0x…", v2_factory = "0x…", v3_factory = "0x…" }
# tokens = [
#   { symbol = "WETH", address = "0x…", decimals = 18, group = "ETH" },
#   { symbol = "USDT", address = "0x…", decimals = 6, group = "USDT" },
# ]
# pools = [
#   { protocol = "v3", base = "WETH", quote = "USDT", fee_pips = 500 },
# ]
"""


KEYSTORE_WALLET = {"keystore": "main", "password": "file:wallet.password"}


def write_config(path: Path, info: Info, wallet: Mapping[str, str] = KEYSTORE_WALLET) -> None:
    """Settings for a running sandbox, with this `[wallet]`. Raises UsageError rather than replace a file that a person wrote."""
    if path.exists() and not path.read_text().startswith(MARK):
        raise UsageError(f"{path} exists and is not a sandbox's; choose another folder with --home")
    contracts = info.contracts
    named = {
        "universal_router": contracts["UniversalRouter"],
        "permit2": contracts["Permit2"],
        "multicall3": contracts["Multicall3"],
        "weth": contracts["WETH9"],
        "v2_factory": contracts["UniswapV2Factory"],
        "v3_factory": contracts["UniswapV3Factory"],
        "v4_state_view": contracts["StateView"],
        "v4_pool_manager": contracts["PoolManager"],
        "audit_anchor": contracts["AuditAnchor"],
    }
    named |= info.account_contracts
    is_role = info.account.get("account") == "role"
    symbols = {address: symbol for symbol, (address, _) in info.tokens.items()}
    lines = [
        f"{MARK}, chain {info.chain}; simulated money only",
        'account = "main"',
        'home = "."',
        "",
        *(["[risk]", f"gas_limit_max = {ROLE_GAS_LIMIT_MAX}", ""] if is_role else []),
        "[wallet]",
        *(f'{key} = "{value}"' for key, value in wallet.items()),
        "",
        "[venues.binance]",
        'kind = "ccxt_exchange"',
        'exchange = "binance"',
        f'url = "{info.exchange_url}"',
        f'ws_url = "{info.exchange_ws_url}"',
        f'api_key = "{info.api_key}"',
        'secret = "file:exchange.secret"',
        'symbols = ["ETH/USDT"]',
        'groups = { ETH = "ETH", USDT = "USDT" }',
        "",
        "[venues.uniswap]",
        'kind = "uniswap"',
        f'rpc_url = "{info.rpc_url}"',
        f"chain_id = {info.chain_id}",
        f'wallet = "{info.wallet}"',
        *(f'{key} = "{value}"' for key, value in info.account.items()),
        *([f"gas_limit_max = {ROLE_GAS_LIMIT_MAX}"] if is_role else []),
        "confirmations = 2",
        *(["simulate = false  # this chain cannot run a transaction and take it back"] if info.chain == "eth-tester" else []),
        "contracts = { " + ", ".join(f'{key} = "{value}"' for key, value in named.items()) + " }",
        "tokens = [",
        *(
            f'  {{ symbol = "{symbol}", address = "{address}", decimals = {decimals}, group = "{_group(symbol)}" }},'
            for symbol, (address, decimals) in info.tokens.items()
        ),
        "]",
        "pools = [",
        *(_pool(pool, symbols) for pool in info.pools),
        "]",
        "",
    ]
    path.write_text("\n".join(lines))


def _group(symbol: str) -> str:
    return "ETH" if symbol == "WETH" else symbol


def _pool(pool: dict[str, str | int], symbols: dict[str, str]) -> str:
    tokens = {symbols[str(pool["currency0"])], symbols[str(pool["currency1"])]}
    quote = next(token for token in ("USDT", "USDC") if token in tokens)
    base = next(token for token in tokens if token != quote)
    parts = [("protocol", f'"{pool["protocol"]}"'), ("base", f'"{base}"'), ("quote", f'"{quote}"'), ("fee_pips", pool["fee_pips"])]
    if pool["protocol"] != "v2":
        parts.append(("tick_spacing", pool["tick_spacing"]))
    if pool["protocol"] != "v4":
        parts.append(("address", f'"{pool["address"]}"'))
    return "  { " + ", ".join(f"{key} = {value}" for key, value in parts) + " },"
