"""What a user writes about Uniswap on one chain, and what the chain itself says about it: addresses, fees, tick spacings.

Pools that are named without an address are looked up through their factories; a v4 pool's id follows from its key. Whatever the
config says is held against the contracts once, at the start: a wrong number of decimals would trade the wrong amount.
"""

from typing import Literal, Self

from eth_utils.address import is_address, to_checksum_address
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from agent.chains import abi
from agent.chains.multicall import Read, read_all
from agent.chains.rpc import Node, is_loopback, place_of, whole
from agent.domain.amount import Asset
from agent.domain.errors import ChainError, ConfigError
from agent.domain.instrument import PIPS, Instrument, Pool, Protocol
from agent.venues.uniswap.pins import checked

ZERO_ADDRESS = "0x" + "00" * 20
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"  # the same on almost every chain
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
MULTI_SEND = "0x9641d764fc13c8B624c04430C7356C1C7C8102e2"  # MultiSendCallOnly 1.4.1, the same on almost every chain
MULTI_SEND_UNWRAPPER = "0x93B7fCbc63ED8a3a24B59e1C3e6649D50B7427c0"  # of Zodiac Roles v2, the same on almost every chain
ENTRY_POINT = "0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108"  # ERC-4337's, 0.8, the same on almost every chain
POLL_LOOPBACK_S, POLL_S = 0.25, 2.0
HOOKS_IN_SWAPS = 0b1100_1100  # v4 Hooks: before swap, after swap, and the two that change a swap's amounts
SPACINGS = {100: 1, 500: 10, 3_000: 60, 10_000: 200}  # fee in pips -> tick spacing, where the factories' own defaults hold
V2_FEE_PIPS = 3_000
# In gas, measured on the real contracts (tests/chain/test_uniswap_venue.py holds them to it): a leg of v2 adds 54,000, of v3
# 63,000, of v4 64,000 to 76,000; the batch itself takes 64,000, or 98,000 with a token's first permit. Crossed ticks come on top.
LEG_GAS: dict[str, int] = {"v2": 55_000, "v3": 70_000, "v4": 80_000}
BATCH_BASE_GAS = 80_000  # 21,000 of every transaction, call data, the router, and the permit
# More than that through an account, which carries the calls out; tests/chain/test_safe_account.py and test_account_trades.py hold
# them to it. A role's contract reads every swap before it happens.
ACCOUNT_GAS: dict[str, int] = {"eoa": 0, "safe": 80_000, "role": 150_000, "erc4337": 100_000, "eip7702": 25_000}
ACCOUNT_LEG_GAS: dict[str, int] = {"role": 300_000}
# What each kind needs to be told besides the wallet's address.
_ACCOUNTS: dict[str, tuple[str, ...]] = {
    "eoa": (),
    "safe": ("safe",),
    "role": ("safe", "modifier", "role"),
    "erc4337": ("smart_account",),
    "eip7702": ("delegate",),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text[:48]!r} is not an address (0x and 40 hexadecimal digits, checksum right if it has one)")
    return str(to_checksum_address(text))


class Token(_Section):
    """An ERC-20. `group` says which coins are interchangeable across venues; empty: the symbol."""

    symbol: str = Field(min_length=1, max_length=16, pattern=r"^[\w.$₮+-]+$")
    address: str
    decimals: int = Field(ge=0, le=36)
    group: str = ""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)


class Contracts(_Section):
    """Where Uniswap lives on this chain. The factories are needed for pools without an address, the v4 ones for v4 pools.

    `audit_anchor`: our own contract that keeps heads of the journal, where one was deployed. `multi_send`: a Safe's batches;
    `entry_point`: ERC-4337's; `multi_send_unwrapper`: with which a Roles modifier reads batches.
    """

    universal_router: str
    permit2: str = PERMIT2
    multicall3: str = MULTICALL3
    weth: str = ""
    v2_factory: str = ""
    v3_factory: str = ""
    v4_state_view: str = ""
    v4_pool_manager: str = ""
    audit_anchor: str = ""
    multi_send: str = MULTI_SEND
    multi_send_unwrapper: str = MULTI_SEND_UNWRAPPER
    entry_point: str = ENTRY_POINT

    @field_validator("*")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        return _address(value) if value else ""


class PoolSection(_Section):
    """One pool to trade in. `base` and `quote` are token symbols."""

    protocol: Protocol
    base: str
    quote: str
    fee_pips: int = Field(default=V2_FEE_PIPS, ge=0, lt=PIPS)
    tick_spacing: int = Field(default=0, ge=0, le=32_767, description="0: the factory's default for the fee")
    address: str = ""
    hooks: str = ZERO_ADDRESS

    @field_validator("address", "hooks")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        return _address(value) if value else ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.base == self.quote:
            raise ValueError("base and quote are the same token")
        if self.protocol == "v2" and self.fee_pips != V2_FEE_PIPS:
            raise ValueError("a v2 pair always takes 3000 pips")
        if self.protocol == "v4" and (self.address or not (self.tick_spacing or self.fee_pips in SPACINGS)):
            raise ValueError("a v4 pool has no address, and needs a tick_spacing for this fee")
        if int(self.hooks, 16) and (self.protocol != "v4" or int(self.hooks, 16) & HOOKS_IN_SWAPS):
            raise ValueError("hooks that act in swaps are not modelled: leave this pool out")
        return self


class Config(_Section):
    """Uniswap v2, v3 and v4 on one chain, traded by one wallet through Permit2 and the UniversalRouter.

    Two providers are better than one: with `rpc_url_second`, nothing is believed that they tell differently. A private relay
    keeps swaps from being seen before they are mined; what it says proves nothing, and nothing depends on its silence: a swap is
    safe by its bounds. What it does not get mined is cancelled in public, or with `private_fallback_s` published.
    """

    kind: Literal["uniswap"] = "uniswap"
    rpc_url: str = Field(repr=False, description="http, https, ws or wss; may carry a provider's key, which is never shown")
    rpc_url_second: str = Field(default="", repr=False, description="another provider of the same chain, whose word must agree")
    private_rpc_url: str = Field(default="", repr=False, description="a relay: swaps go there and not to the public")
    private_fallback_s: int = Field(default=0, ge=0, le=86_400, description="a swap is published after it; 0: never")
    lag_blocks_max: int = Field(default=3, ge=0, le=1_000, description="how far one provider may be behind the other")
    chain_id: int = Field(ge=1)
    wallet: str
    account: Literal["eoa", "safe", "role", "erc4337", "eip7702"] = Field(
        default="eoa", description="who holds the tokens, and how the wallet's key reaches them; see docs/accounts.md"
    )
    safe: str = ""
    modifier: str = Field(default="", description="the Roles contract, where the wallet has a role in the Safe")
    role: str = Field(default="", max_length=32, pattern="^[!-~]*$", description="the role's name")
    role_since: int = Field(default=0, ge=0, description="the block in which the modifier was made; its rules are read from there")
    smart_account: str = ""
    entry_point_version: Literal["0.7", "0.8"] = Field(default="0.8", description="of contracts.entry_point, for erc4337")
    delegate: str = Field(default="", description="whose code the wallet itself runs (EIP-7702)")
    contracts: Contracts
    tokens: tuple[Token, ...] = Field(min_length=2, max_length=64)
    pools: tuple[PoolSection, ...] = Field(min_length=1, max_length=64)
    code_hashes: dict[str, str] = Field(
        default={}, max_length=64, description="contract -> keccak-256 of its code; see docs/policy.md"
    )
    simulate: bool = Field(
        default=True, description="run each transaction before it is signed, and sign only what does what its bytes say"
    )
    gas_fee_max_gwei: int = Field(default=500, ge=1, le=100_000, description="no transaction is built above it, whatever risk says")
    gas_limit_max: int = Field(default=3_000_000, ge=21_000, le=30_000_000)
    poll_s: float = Field(default=0, ge=0, le=60, description="0: 0.25 s on this machine, else 2 s")
    timeout_s: float = Field(default=5, gt=0, le=60, description="of one request to the node")
    tick_words: int = Field(default=4, ge=1, le=32, description="words of 256 ticks that are read on each side of the price")
    confirmations: int = Field(default=64, ge=0, le=1_000, description="blocks on top of a trade's block until it counts as final")

    @field_validator("rpc_url", "rpc_url_second", "private_rpc_url")
    @classmethod
    def _is_url(cls, value: str, info: ValidationInfo) -> str:
        try:
            if value or info.field_name == "rpc_url":
                place_of(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("code_hashes")
    @classmethod
    def _are_pins(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            return checked(value)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("code_hashes: ")) from None

    @field_validator("wallet", "safe", "modifier", "smart_account", "delegate")
    @classmethod
    def _is_address(cls, value: str, info: ValidationInfo) -> str:
        return _address(value) if value or info.field_name == "wallet" else ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.rpc_url_second == self.rpc_url:
            raise ValueError("rpc_url_second is the same as rpc_url: a second provider must be another one")
        self._refuse_half_an_account()
        symbols = [token.symbol for token in self.tokens]
        if len(set(symbols)) != len(symbols):
            raise ValueError("two tokens have the same symbol")
        for pool in self.pools:
            if missing := {pool.base, pool.quote} - set(symbols):
                raise ValueError(
                    f"the pool {pool.protocol} {pool.base}/{pool.quote} names {min(missing)}, which is not among the tokens"
                )
            if pool.protocol == "v4" and not (self.contracts.v4_state_view and self.contracts.v4_pool_manager):
                raise ValueError("v4 pools need contracts.v4_state_view and contracts.v4_pool_manager")
            factory = {"v2": self.contracts.v2_factory, "v3": self.contracts.v3_factory, "v4": "-"}[pool.protocol]
            if not pool.address and not factory:
                raise ValueError(f"a {pool.protocol} pool without an address needs contracts.{pool.protocol}_factory")
        return self

    def _refuse_half_an_account(self) -> None:
        for name in sorted({one for names in _ACCOUNTS.values() for one in names}):
            is_needed = name in _ACCOUNTS[self.account]
            if is_needed and not getattr(self, name):
                raise ValueError(f'account = "{self.account}" needs {name}: give it, or account = "eoa"')
            if getattr(self, name) and not is_needed:
                raise ValueError(f'{name} has no meaning with account = "{self.account}": take it out, or correct account')

    @property
    def holder(self) -> str:
        """Who holds the tokens; the wallet sends, and pays for gas."""
        return self.safe or self.smart_account or self.wallet

    @property
    def swaps_to(self) -> str:
        """Where the wallet sends what swaps: to the router, or to the contract through which it reaches its account."""
        entries = {"safe": self.safe, "role": self.modifier, "erc4337": self.contracts.entry_point, "eip7702": self.wallet}
        return entries.get(self.account, self.contracts.universal_router)

    @property
    def tells_permit2(self) -> bool:
        """Whether its account tells Permit2 by calls, all in one batch, instead of signing permits."""
        return self.account != "eoa"

    @property
    def account_gas(self) -> int:
        """What its account adds to a batch."""
        return ACCOUNT_GAS[self.account]

    @property
    def touched(self) -> tuple[str, ...]:
        """The contracts that its transactions reach: what is worth pinning."""
        pools = (pool.address for pool in self.pools if pool.address)
        named = [self.contracts.universal_router, self.contracts.permit2, self.contracts.v4_pool_manager]
        named += [self.safe, self.contracts.multi_send] if self.safe else []
        named += [self.modifier, self.contracts.multi_send_unwrapper] if self.modifier else []
        named += [self.smart_account, self.contracts.entry_point] if self.smart_account else []
        named += [self.delegate]
        return tuple(dict.fromkeys(one for one in (*named, *(token.address for token in self.tokens), *pools) if one))

    @property
    def poll_every_s(self) -> float:
        return self.poll_s or (POLL_LOOPBACK_S if is_loopback(self.rpc_url) else POLL_S)

    def markets(self) -> set[str]:
        """The pairs of groups that its pools trade."""
        assets = self.assets
        return {f"{assets[pool.base].group}/{assets[pool.quote].group}" for pool in self.pools}

    @property
    def home(self) -> str:
        """Where this chain's assets live, in the words of CAIP-2."""
        return f"eip155:{self.chain_id}"

    @property
    def native(self) -> Asset:
        """The coin that pays for gas."""
        return Asset("ETH", self.home, 18, "ETH")

    @property
    def assets(self) -> dict[str, Asset]:
        """By symbol."""
        return {
            token.symbol: Asset(token.symbol, self.home, token.decimals, token.group or token.symbol, token.address)
            for token in self.tokens
        }


async def discover(rpc: Node, venue: str, config: Config) -> tuple[Instrument, ...]:
    """The instruments, with addresses and tick spacings from the chain. Raises ChainError when chain and config contradict."""
    block = whole(await rpc.call("eth_blockNumber"))
    contracts, assets = config.contracts, config.assets
    reads = [Read(token.address, abi.decimals(), f"the token {token.symbol}") for token in config.tokens]
    unplaced = [pool for pool in config.pools if pool.protocol != "v4" and not pool.address]
    for pool in unplaced:
        pair = assets[pool.base].address, assets[pool.quote].address
        if pool.protocol == "v2":
            reads.append(Read(contracts.v2_factory, abi.get_pair(*pair), "the v2 factory"))
        else:
            reads.append(Read(contracts.v3_factory, abi.get_pool(*pair, pool.fee_pips), "the v3 factory"))
    answers = iter(await read_all(rpc, contracts.multicall3, reads, block))
    for token in config.tokens:
        (found,) = abi.decoded(["uint8"], next(answers), f"the token {token.symbol}")
        if found != token.decimals:
            raise ChainError(
                f"{token.symbol} has {found} decimals on chain {rpc.chain_id}, the config says {token.decimals}: correct it"
            )
    places = {id(pool): _placed(pool, next(answers), rpc.chain_id) for pool in unplaced}
    pools = [_pool(config, one, places.get(id(one), one.address)) for one in config.pools]
    checked = await _checked_pools(rpc, contracts.multicall3, config.pools, pools, block)
    return _instruments(venue, config, checked)


def _placed(pool: PoolSection, answer: bytes, chain_id: int) -> str:
    (address,) = abi.decoded(["address"], answer, f"the {pool.protocol} factory")
    if not int(address, 16):
        what = f"{pool.protocol} pool {pool.base}/{pool.quote} with {pool.fee_pips} pips"
        raise ChainError(f"there is no {what} on chain {chain_id}: take it out of the config")
    return str(to_checksum_address(address))


def _pool(config: Config, section: PoolSection, address: str) -> Pool:
    """The pool with its tokens in the contracts' order, by address."""
    pair = config.assets[section.base].address, config.assets[section.quote].address
    token0, token1 = sorted(pair, key=lambda one: int(one, 16))
    if section.protocol == "v2":
        return Pool("v2", address, token0, token1)
    spacing = section.tick_spacing or SPACINGS.get(section.fee_pips, 0)
    if section.protocol == "v3":
        return Pool("v3", address, token0, token1, spacing)
    pool_id = abi.v4_pool_id(token0, token1, section.fee_pips, spacing, section.hooks)
    return Pool("v4", "", token0, token1, spacing, section.hooks, pool_id)


async def _checked_pools(
    rpc: Node, multicall3: str, sections: tuple[PoolSection, ...], pools: list[Pool], block: int
) -> list[Pool]:
    """v2 and v3 contracts must trade the tokens that the config names, at its fee; their tick spacing is the contract's."""
    reads = []
    for pool in pools:
        if pool.protocol != "v4":
            reads += [Read(pool.address, abi.selector(f"{name}()"), f"the {pool.protocol} pool") for name in ("token0", "token1")]
        if pool.protocol == "v3":
            reads += [Read(pool.address, abi.selector(f"{name}()"), "the v3 pool") for name in ("fee", "tickSpacing")]
    answers = iter(await read_all(rpc, multicall3, reads, block))
    checked = []
    for section, pool in zip(sections, pools, strict=True):
        spacing = pool.tick_spacing
        if pool.protocol != "v4":
            pair = tuple(to_checksum_address(abi.decoded(["address"], next(answers), "the pool")[0]) for _ in range(2))
            fee = abi.words(next(answers))[0] if pool.protocol == "v3" else section.fee_pips
            spacing = abi.signed(abi.words(next(answers))[0]) if pool.protocol == "v3" else 0
            if pair != (pool.token0, pool.token1) or fee != section.fee_pips:
                what = f"{section.base}/{section.quote} at {section.fee_pips} pips"
                raise ChainError(f"the {pool.protocol} pool {pool.address} is not {what}: correct its address")
        checked.append(Pool(pool.protocol, pool.address, pool.token0, pool.token1, spacing, pool.hooks, pool.pool_id))
    return checked


def _instruments(venue: str, config: Config, pools: list[Pool]) -> tuple[Instrument, ...]:
    found: dict[str, Instrument] = {}
    for section, pool in zip(config.pools, pools, strict=True):
        symbol = f"{pool.protocol}-{section.fee_pips}-{section.base}/{section.quote}"
        if pool.protocol == "v4" and (pool.tick_spacing != SPACINGS.get(section.fee_pips) or int(pool.hooks, 16)):
            symbol += f"-{pool.tick_spacing}-{pool.pool_id[2:10]}"
        if symbol in found:
            raise ChainError(f"the pool {symbol} is in the config twice: take one out")
        base, quote = config.assets[section.base], config.assets[section.quote]
        found[symbol] = Instrument(
            venue,
            symbol,
            base,
            quote,
            section.fee_pips,
            pool=pool,
            gas=LEG_GAS[pool.protocol] + ACCOUNT_LEG_GAS.get(config.account, 0),
        )
    return tuple(found.values())
