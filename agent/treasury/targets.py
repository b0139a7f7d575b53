"""What to move between a hot account and a cold one, so that the hot one holds enough to trade with and no more."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Kind = Literal["sweep", "top_up"]
Balances = Mapping[tuple[str, str], int]  # (account, coin) -> units


class Bound(msgspec.Struct, frozen=True):
    """Of one coin in the account `hot`: above `ceiling` it is swept to `cold`, below `floor` it is topped up, both to `target`.

    Units of the coin's smallest unit; floor <= target <= ceiling.
    """

    coin: str
    hot: str
    cold: str
    floor: int
    target: int
    ceiling: int


class Move(msgspec.Struct, frozen=True):
    """`units` of a coin from one account to another. `missing`: what the cold account lacks for a whole top-up."""

    kind: Kind
    coin: str
    source: str
    to: str
    units: int
    missing: int = 0


def moves(bounds: Sequence[Bound], balances: Balances, kind: Kind) -> list[Move]:
    """What of this kind is to be moved now, in the order of the bounds.

    >>> moves([Bound("USDT", "hot", "cold", 10, 50, 100)], {("hot", "USDT"): 120, ("cold", "USDT"): 0}, "sweep")
    [Move(kind='sweep', coin='USDT', source='hot', to='cold', units=70, missing=0)]
    """
    found = []
    for bound in bounds:
        held = balances[bound.hot, bound.coin]
        if kind == "sweep" and held > bound.ceiling:
            found.append(Move(kind, bound.coin, bound.hot, bound.cold, held - bound.target))
        if kind == "top_up" and held < bound.floor:
            wanted = bound.target - held
            units = min(wanted, balances[bound.cold, bound.coin])
            found.append(Move(kind, bound.coin, bound.cold, bound.hot, units, wanted - units))
    return found
