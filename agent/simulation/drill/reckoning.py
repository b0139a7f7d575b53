"""The end of a day: when all is quiet, the journal says what the venues say, trade by trade and coin by coin."""

from collections import Counter
from collections.abc import Sequence

from agent.domain.amount import rescale_up
from agent.domain.order import IN_DOUBT, Fill, OrderState
from agent.domain.plan import PlaceOrder
from agent.simulation.drill.blocks import Receipt, balances
from agent.simulation.drill.exchange import HAND, Exchange
from agent.simulation.drill.laws import Laws
from agent.simulation.drill.market import AMM, MAIN, base_of, quote_of


def reckon(laws: Laws) -> None:
    """All is quiet: the journal says what the venues say."""
    for parent in laws.state.parents.values():
        if parent.filled > parent.intent.quantity and not laws.is_late():
            laws.broken("parent-overfilled", f"{parent.intent.intent_id} traded {parent.filled} of {parent.intent.quantity}")
        paid = [one for name in parent.orders for one in laws.state.orders[name].fills]
        base = [one.paid if parent.intent.side == "sell" else one.received for one in paid]
        if sum(rescale_up(one, parent.filled.asset).units for one in base) != parent.filled.units:
            laws.broken("parent-overfilled", f"{parent.intent.intent_id} does not count what its orders traded")
    for order in laws.state.orders.values():
        if not order.is_settled or order.state in IN_DOUBT:
            laws.broken("live", f"{order.order_id} is still {order.state}")
    for exchange in laws.exchanges:
        _exchange(laws, exchange)
    _chain(laws)
    for blunder in laws.chain.ledger.blunders:
        laws.broken("wallet", blunder)
    for instrument in sorted(laws.halts()[1]):
        laws.broken("excess", f"{instrument} traded too much, and nothing was halted")


def _exchange(laws: Laws, exchange: Exchange) -> None:
    book, orders = exchange.ledger, laws.state.orders
    for name in sorted(one for one, count in Counter(book.arrivals).items() if count > 1 and not one.startswith(HAND)):
        laws.broken("sent-once", f"{name} reached {book.venue} twice")
    for name in book.arrivals:
        if name not in orders and not name.startswith(HAND):
            laws.broken("durable-first", f"{name} reached {book.venue}, and the journal does not know it")
    theirs = [one.fill for one in book.trades.values() if not one.is_busted and one.fill.order_id in orders]
    _fills(laws, book.venue, theirs)
    for truth, asset in ((book.base, base_of(book.venue)), (book.quote, quote_of(book.venue))):
        ours = laws.state.ledger.balance(MAIN, book.venue, asset).units
        if ours != truth:
            laws.broken("balances", f"{book.venue} has {truth} units of {asset.id}, the journal {ours}")
    for name, placed in book.orders.items():
        order = orders.get(name)
        if order is not None and order.state is not placed.state:
            laws.broken("states", f"{name} is {order.state} here and {placed.state} at {book.venue}")
    for order in orders.values():
        never = order.plan.venue == book.venue and isinstance(order.plan, PlaceOrder) and order.order_id not in book.orders
        if never and order.state not in (OrderState.REJECTED, OrderState.CANCELLED):
            laws.broken("states", f"{order.order_id} is {order.state} here and never was at {book.venue}")


def _chain(laws: Laws) -> None:
    receipts = [one for block in laws.chain.ledger.blocks for one in block.receipts]
    _fills(laws, AMM, [fill for one in receipts for fill in one.fills])
    for truth in balances(laws.chain.ledger.wallet):
        ours = laws.state.ledger.balance(MAIN, AMM, truth.asset)
        if ours != truth:
            laws.broken("balances", f"the wallet has {truth}, the journal {ours}")
    paid = {(name, tx_hash): amount.units for name, one in laws.state.orders.items() for tx_hash, amount in one.gas_paid.items()}
    for receipt in receipts:
        _receipt(laws, receipt, paid)
    for name, _ in paid:
        laws.broken("fills", f"{name}: gas is booked for what is in no block")


def _receipt(laws: Laws, receipt: Receipt, paid: dict[tuple[str, str], int]) -> None:
    body, tx_hash = receipt.tx.body, receipt.tx.hash
    order = laws.state.orders.get(body.order_id)
    if not body.order_id and body.nonce >= laws.state.nonce_base.get(AMM, 0):
        laws.broken("strangers", f"transaction {body.nonce} of the wallet is of somebody else, and nobody was told")
    if order is None:
        return
    if paid.pop((body.order_id, tx_hash), 0) != receipt.cost:
        laws.broken("fills", f"{order.order_id}: its gas is not booked")
    if bool(receipt.trouble) != (order.state is OrderState.REVERTED):
        laws.broken("states", f"{order.order_id} is {order.state} here; in its block: {receipt.trouble or 'done'}")


def _fills(laws: Laws, venue: str, theirs: Sequence[Fill]) -> None:
    """Every trade of the venue is booked once, for what it was; and nothing else is."""
    ours = [fill for order in laws.state.orders.values() if order.plan.venue == venue for fill in order.fills]
    counts = Counter(_trade(fill) for fill in ours)
    counts.subtract(Counter(_trade(fill) for fill in theirs))
    for trade, count in sorted(counts.items()):
        if count and not trade.startswith(HAND):  # what traded before it was claimed, a person has explained
            laws.broken("fills", f"{trade} {'is not booked' if count < 0 else 'is booked and no trade, or twice'}")


def _trade(fill: Fill) -> str:
    return f"{fill.order_id} {fill.trade_id[-12:]}: {fill.paid} -> {fill.received}, fee {fill.fee}"
