"""Money: an integer number of an asset's smallest unit. Different assets never mix, and nothing rounds silently.

The same coin at two places is two assets (USDT on an exchange, USDT on chain 1); `Asset.group` says which are interchangeable.
"""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from agent.domain.errors import NumberError

if TYPE_CHECKING:
    Units = int
else:

    class Units(int):
        """An integer that travels as text, because JSON readers elsewhere lose precision above 2**53."""


TEXT_MAX = 80  # characters; a uint256 with 18 decimals has 79
DECIMALS_MAX = 36
ANYWHERE = "*"


def whole(value: object) -> Units:
    """The only way that a number becomes money: an integer as it is, anything else a TypeError."""
    if type(value) is Units:
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"money is a whole number of units, not {type(value).__name__}")
    return Units(value)


_put = msgspec.structs.force_setattr


class Asset(msgspec.Struct, frozen=True):
    """A coin at a place. `home` is a venue's name, `eip155:<chain id>`, or `*` for the group itself."""

    symbol: str
    home: str
    decimals: int
    group: str = ""
    address: str = ""

    @property
    def id(self) -> str:
        return f"{self.symbol}@{self.home}"

    def __str__(self) -> str:
        return self.symbol if self.home == ANYWHERE else self.id


def group_asset(group: str, decimals: int = 18) -> Asset:
    """The asset that stands for a whole group, in which parents are counted: fine enough for all members."""
    return Asset(group, ANYWHERE, decimals, group)


class Amount(msgspec.Struct, frozen=True):
    """`units` of the smallest unit of `asset`. May be negative (a posting); arithmetic raises TypeError across assets."""

    units: Units
    asset: Asset

    def __post_init__(self) -> None:
        units = self.units
        if type(units) is not Units:  # mostly a plain integer: no second call for that
            _put(self, "units", Units(units) if type(units) is int else whole(units))

    def _same(self, other: "Amount") -> None:
        if other.asset != self.asset:
            raise TypeError(f"cannot mix {self.asset.id} with {other.asset.id}")

    def __add__(self, other: "Amount") -> "Amount":
        self._same(other)
        return Amount(self.units + other.units, self.asset)

    def __sub__(self, other: "Amount") -> "Amount":
        self._same(other)
        return Amount(self.units - other.units, self.asset)

    def __neg__(self) -> "Amount":
        return Amount(-self.units, self.asset)

    def __lt__(self, other: "Amount") -> bool:
        self._same(other)
        return self.units < other.units

    def __le__(self, other: "Amount") -> bool:
        self._same(other)
        return self.units <= other.units

    def __gt__(self, other: "Amount") -> bool:
        return other < self

    def __ge__(self, other: "Amount") -> bool:
        return other <= self

    def __bool__(self) -> bool:
        return self.units != 0

    def __str__(self) -> str:
        return f"{plain(self.units, self.asset.decimals)} {self.asset}"


def zero(asset: Asset) -> Amount:
    return Amount(0, asset)


def parse_amount(text: str, asset: Asset) -> Amount:
    """`'40.5'` -> exact units. Refuses (NumberError) more decimals than the asset has, signs, exponents, NaN, odd digits."""
    return Amount(parse_units(text, asset.decimals, asset.symbol), asset)


def parse_units(text: str, decimals: int, what: str = "number") -> int:
    """The one strict reader of numbers from outside. `text` is plain ASCII digits with at most one point.

    Bounds are checked before anything is converted, because `int(Decimal('1e1000000'))` takes half a minute.
    """
    if not isinstance(text, str):
        raise NumberError(f"{what}: write the number as text, not as {type(text).__name__}")
    if not text or len(text) > TEXT_MAX:
        raise NumberError(f"{what}: a number has 1 to {TEXT_MAX} characters, this has {len(text)}")
    front, point, part = text.partition(".")
    if not (front + part).isascii() or not (front + part).isdigit() or (point and not part) or not front:
        raise NumberError(f"{what}: {text[:24]!r} is not a plain decimal number such as 12.5")
    kept = part.rstrip("0")
    if len(kept) > decimals:
        raise NumberError(f"{what}: {text[:24]!r} has {len(kept)} decimals, at most {decimals} are possible")
    scale: int = 10**decimals
    return int(front) * scale + (int(kept.ljust(decimals, "0")) if kept else 0)


def plain(units: int, decimals: int) -> str:
    """Units as exact plain text, without exponent and without trailing zeros. The inverse of `parse_units`."""
    sign, digits = "-" if units < 0 else "", str(abs(units)).rjust(decimals + 1, "0")
    front, part = (digits[:-decimals], digits[-decimals:].rstrip("0")) if decimals else (digits, "")
    return f"{sign}{front}.{part}" if part else f"{sign}{front}"


def rescale_down(amount: Amount, asset: Asset) -> Amount:
    """The same worth in another asset of the group, rounded down (what you may still send or expect)."""
    return _rescale(amount, asset, up=False)


def rescale_up(amount: Amount, asset: Asset) -> Amount:
    """The same worth in another asset of the group, rounded up (what you must have or count as used)."""
    return _rescale(amount, asset, up=True)


def _rescale(amount: Amount, asset: Asset, *, up: bool) -> Amount:
    if not asset.group or asset.group != amount.asset.group:
        raise TypeError(f"{amount.asset.id} and {asset.id} are not interchangeable")
    shift = asset.decimals - amount.asset.decimals
    if shift >= 0:
        return Amount(amount.units * 10**shift, asset)
    scale = 10**-shift
    return Amount(-(-amount.units // scale) if up else amount.units // scale, asset)


def decimal_of(amount: Amount) -> Decimal:
    """For printing and charts only."""
    return Decimal(amount.units).scaleb(-amount.asset.decimals)


def encode_hook(value: Any) -> Any:
    """For msgspec encoders: how `Units` is written."""
    if isinstance(value, Units):
        return str(int(value))
    raise TypeError(f"no text form for {type(value).__name__}")


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec decoders: how `Units` is read, strictly."""
    if kind is Units:
        if isinstance(value, str) and len(value) <= TEXT_MAX and value.removeprefix("-").isdigit() and value.isascii():
            return Units(value)
        raise NumberError(f"units must be digits in text, not {str(value)[:24]!r}")
    raise InvalidOperation(f"no reader for {kind.__name__}")
