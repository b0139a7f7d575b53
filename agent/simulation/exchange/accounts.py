"""Who owns what on the sandbox exchange: balances, what open orders reserve, fees, and the API keys that act for an account.

All amounts are integers in units of 1e-8 of an asset, as the venue itself prints them. A fee is charged in the asset that is
*received*: the buyer pays in base, the seller in quote, `received * rate` rounded down to the unit (in the trader's favour).
The *house* stands for the rest of the world: its balances may go below zero and it pays no fee. Units are only ever moved: per
asset, the sum over all accounts, the house and the fee account equals what was deposited.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque

import msgspec

UNITS_PER_ASSET = 10**8
PIPS = 1_000_000
HOUSE = "house"
FEES = "fees"
_LEDGER_MAX = 10_000


class Balance(msgspec.Struct):
    """Units that are free to use, and units that open orders hold."""

    free: int = 0
    locked: int = 0


class ApiKey(msgspec.Struct, frozen=True):
    """A key, the secret that signs for it, and the account it acts for. Never prints its secret."""

    key: str
    secret: str
    account: str

    def __repr__(self) -> str:
        return f"ApiKey(account={self.account!r})"


class Transfer(msgspec.Struct, frozen=True):
    """A deposit (positive units) or a withdrawal (negative units)."""

    id: int
    account: str
    asset: str
    units: int
    time_ms: int
    address: str = ""
    network: str = ""


class Accounts:
    """All balances, reservations and keys of one exchange. Fees are pips (1e-6) of the amount received.

    The keys of the `withdrawers` may withdraw; those of everybody else may read and trade.
    """

    def __init__(self, maker_fee_pips: int = 1000, taker_fee_pips: int = 1000, key_seed: str | None = None) -> None:
        if not (0 <= maker_fee_pips < PIPS and 0 <= taker_fee_pips < PIPS):
            raise ValueError(f"fees are pips between 0 and {PIPS - 1}: set maker_fee_pips and taker_fee_pips accordingly")
        self.maker_fee_pips = maker_fee_pips
        self.taker_fee_pips = taker_fee_pips
        self.keys: dict[str, ApiKey] = {}
        self.withdrawers: set[str] = set()
        self.transfers: deque[Transfer] = deque(maxlen=_LEDGER_MAX)
        self._balances: dict[str, dict[str, Balance]] = {}
        self._key_seed = key_seed
        self._transfer_id = 0

    def add_key(self, account: str) -> ApiKey:
        """A new key pair for `account`: random, or derived from the seed so that a run can be repeated."""
        if self._key_seed is None:
            pair = secrets.token_hex(32), secrets.token_hex(32)
        else:
            stem = f"{self._key_seed}:{account}:{len(self.keys)}"
            pair = _digest(stem + ":key"), _digest(stem + ":secret")
        key = ApiKey(pair[0], pair[1], account)
        self.keys[key.key] = key
        return key

    def balance(self, account: str, asset: str) -> Balance:
        """The live balance; an asset never touched is zero."""
        held = self._balances.setdefault(account, {})
        if asset not in held:
            held[asset] = Balance()
        return held[asset]

    def assets(self, account: str) -> dict[str, Balance]:
        """Every asset the account ever touched."""
        return self._balances.setdefault(account, {})

    def total(self, asset: str) -> int:
        """Units of `asset` over all accounts, the house and the fees: what was deposited less what was withdrawn."""
        held = (balances.get(asset) for balances in self._balances.values())
        return sum(balance.free + balance.locked for balance in held if balance is not None)

    def transfer(self, account: str, asset: str, units: int, now_ms: int, address: str = "", network: str = "") -> Transfer | None:
        """Deposit (units > 0) or withdraw (units < 0); None if the free balance does not cover a withdrawal."""
        balance = self.balance(account, asset)
        if balance.free + units < 0:
            return None
        balance.free += units
        self._transfer_id += 1
        entry = Transfer(self._transfer_id, account, asset, units, now_ms, address, network)
        self.transfers.append(entry)
        return entry

    def can_pay(self, account: str, asset: str, units: int) -> bool:
        """Whether the free balance covers `units`; the house always can."""
        return account == HOUSE or self.balance(account, asset).free >= units

    def lock(self, account: str, asset: str, units: int) -> None:
        """Reserve free units for an open order."""
        if account != HOUSE:
            balance = self.balance(account, asset)
            balance.free -= units
            balance.locked += units

    def unlock(self, account: str, asset: str, units: int) -> None:
        """Give reserved units back."""
        self.lock(account, asset, -units)

    def exchange(self, account: str, paid: tuple[str, int], reserved: int, received: tuple[str, int], fee: int) -> None:
        """Book one side of a fill: pay (from the reservation first), receive, and hand the fee to the venue.

        `reserved` is what had been locked for this fill; what it exceeds the payment by is a price improvement and becomes free.
        """
        if account == HOUSE:
            self.balance(account, paid[0]).free -= paid[1]
        else:
            balance = self.balance(account, paid[0])
            balance.locked -= reserved
            balance.free += reserved - paid[1]
        self.balance(account, received[0]).free += received[1] - fee
        if fee:
            self.balance(FEES, received[0]).free += fee

    def reverse(self, account: str, paid: tuple[str, int], received: tuple[str, int], fee: int) -> None:
        """Take one side of a fill back. What was spent meanwhile is owed: the free balance may go below zero."""
        self.balance(account, received[0]).free -= received[1] - fee
        self.balance(account, paid[0]).free += paid[1]
        if fee:
            self.balance(FEES, received[0]).free -= fee

    def fee_down(self, account: str, received_units: int, is_maker: bool) -> int:
        """The fee on an amount received, in the same asset, rounded down to the unit. The house pays none."""
        if account == HOUSE:
            return 0
        return received_units * (self.maker_fee_pips if is_maker else self.taker_fee_pips) // PIPS


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
