"""The books as they stand: how much of each asset every account holds at every place. A sum over postings and nothing else."""

from collections.abc import Sequence

from agent.domain.amount import Amount, Asset
from agent.ledger.posting import Posting, balanced, is_wallet

Line = tuple[str, str, Amount]  # account, place, what it holds there


class Ledger:
    """Owns the balances. Wallets may go below zero here: what the venue says is the truth, and reconciliation shows the break."""

    def __init__(self) -> None:
        self._units: dict[tuple[str, str, Asset], int] = {}

    def post(self, postings: Sequence[Posting]) -> None:
        """Books all or nothing. Raises LedgerError unless the postings sum to zero for every asset."""
        for posting in balanced(postings):
            key = (posting.account, posting.place, posting.amount.asset)
            self._units[key] = self._units.get(key, 0) + posting.amount.units

    def balance(self, account: str, place: str, asset: Asset) -> Amount:
        """Zero for what was never booked."""
        return Amount(self.units(account, place, asset), asset)

    def units(self, account: str, place: str, asset: Asset) -> int:
        """The same, in the asset's smallest unit."""
        return self._units.get((account, place, asset), 0)

    def balances(self) -> tuple[Line, ...]:
        """What the owners hold, zeros included, sorted by account, place and asset: `lines` without the counter-accounts."""
        return tuple(line for line in self.lines() if is_wallet(line[0]))

    def lines(self) -> tuple[Line, ...]:
        """Every line ever booked, sorted by account, place and asset."""
        keys = sorted(self._units, key=lambda key: (key[0], key[1], key[2].id, key[2].address))
        return tuple((account, place, Amount(self._units[account, place, asset], asset)) for account, place, asset in keys)

    def trial(self) -> tuple[Amount, ...]:
        """The trial balance: the sum over all accounts per asset. Every one is zero, or the books are broken."""
        sums: dict[Asset, int] = {}
        for (_, _, asset), units in self._units.items():
            sums[asset] = sums.get(asset, 0) + units
        return tuple(Amount(units, asset) for asset, units in sums.items())
