"""How the answer of `route --market` looks: a table with what it was compared with, or one JSON object with exact amounts."""

from collections.abc import Iterable
from math import floor, log10
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agent.cli.route_file import Answer
from agent.cli.show import OPINION_DIGITS, Names, bps, coins, gain, line, named, out, print_json, short
from agent.cli.tables import new_table
from agent.domain.amount import Amount, decimal_of
from agent.domain.events import Alternative
from agent.domain.price import Price
from agent.domain.price import decimal_of as price_decimal
from agent.routing.split import Piece

DIGITS = 7  # of a price, for the eye
EXACT_DIGITS = 12  # of a price in JSON: floats have no more that mean anything


def show(found: Answer, *, explain: bool) -> None:
    """A table of legs and the totals; with `explain` the reasons, every alternative, and what was left out."""
    names = Names(one.instrument.id for one in found.view.sources)
    out.print(_legs(found, names))
    out.print(_totals(found, names))
    if explain:
        out.print(_reasons(found, names))
        out.print(_compared(found, names))
        for reason in found.route.rejected:
            source, colon, text = reason.text.partition(": ")
            line(f"left out  {reason.code}: {names(source)}: {text}" if colon else f"left out  {reason.code}: {reason.text}")


def show_json(found: Answer) -> None:
    """One object; its keys are described in docs/market-file.md."""
    print_json(answer_json(found))


def answer_json(found: Answer) -> dict[str, Any]:
    """Amounts as exact text with their asset, prices as text, opinions (shares, basis points, microseconds) as numbers."""
    route, ask = found.route, found.ask
    return {
        "market": ask.market,
        "side": ask.side,
        "quantity": route.quantity,
        "placed": route.quantity - route.unplaced,
        "unplaced": route.unplaced,
        "unplaced_reason": route.unplaced_reason,
        "quote": route.quote,
        "gas": route.gas,
        "conversion_cost": found.conversion_cost,
        "average_price": plain(average(found)),
        "marginal_price": plain(found.route.marginal_price),
        "mid": plain(_mid(found)),
        "against_mid_bps": against_mid(found),
        "gap_bps": found.route.gap_bps,
        "time_us": found.time_us,
        "legs": [_leg(piece, ask.side) for piece in route.pieces],
        "counterfactuals": {
            "best_single": _told(found, route.best_single) if route.best_single else None,
            "alone": [_told(found, one) for one in route.alternatives],
            "naive": [_told(found, one) for one in found.naive],
        },
        "left_out": list(route.rejected),
    }


def plain(price: float, digits: int = EXACT_DIGITS) -> str:
    """A price as plain text with so many significant digits. Not above zero where gas eats more than a trade brings."""
    text = f"{price:.{_places(price, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def average(found: Answer) -> float:
    """After fees and gas, per coin that is placed."""
    placed = decimal_of(found.route.quantity - found.route.unplaced)
    return float(decimal_of(found.route.quote) / placed)


def against_mid(found: Answer) -> float:
    """In the client's favour when positive."""
    return (average(found) / _mid(found) - 1) * 10_000 * _sign(found)


def better_bps(found: Answer, one: Alternative) -> float | None:
    """By how much the split beats an alternative, price against price; None where that could not have been done."""
    if one.quote is None or one.quote.units <= 0:
        return None
    theirs = float(decimal_of(one.quote) / decimal_of(found.route.quantity))
    return round((average(found) / theirs - 1) * 10_000, OPINION_DIGITS) * _sign(found) + 0.0  # never a minus zero


def _sign(found: Answer) -> int:
    return 1 if found.ask.side == "sell" else -1


def _mid(found: Answer) -> float:
    assert found.view.mid is not None, "without a middle there is no route"
    return float(price_decimal(found.view.mid))


def _leg(piece: Piece, side: str) -> dict[str, Any]:
    selling, pool = side == "sell", piece.instrument.pool
    return {
        "source": piece.instrument.id,
        "kind": pool.protocol if pool else "book",
        "amount_in": piece.base if selling else piece.quote,
        "amount_out": piece.quote if selling else piece.base,
        "share": piece.share,
        "average_price": plain(piece.price),
        "average_price_after_gas": plain(piece.price_all_in),
        "fee_pips": piece.instrument.fee_pips,
        "gas": piece.gas,
        "why": piece.why,
    }


def _told(found: Answer, one: Alternative) -> dict[str, Any]:
    return {"place": one.venue, "quote": one.quote, "split_is_better_bps": better_bps(found, one), "why": one.why}


def price_shown(price: float | Price) -> str:
    """For the eye: thousands apart, and as many places as a cheap coin needs."""
    value = float(price_decimal(price)) if isinstance(price, Price) else price
    return f"{value:,.{max(2, _places(value, DIGITS))}f}"


def coins_shown(amount: Amount) -> str:
    """Two places from a hundred on, else four significant digits: never a row of zeros."""
    value = float(decimal_of(amount))
    return coins(amount, 2) if abs(value) >= 100 else f"{value:.{_places(value, 4)}f}"


def _places(value: float, digits: int) -> int:
    """How many places show so many significant digits."""
    return max(0, digits - 1 - floor(log10(abs(value)))) if value else 0


def _legs(found: Answer, names: Names) -> Group:
    route, ask = found.route, found.ask
    base, quote = route.quantity.asset.group, route.quote.asset.group
    word = "fetches" if ask.side == "sell" else "costs"
    title = f"{ask.side} {short(route.quantity - route.unplaced)}: {word} {named(route.quote)} after fees and gas"
    table = new_table(("source", "share", base, quote, "price", "all-in", "gas"), ("source",))
    for piece in route.pieces:
        amounts = (coins_shown(piece.base), coins_shown(piece.quote), price_shown(piece.price), price_shown(piece.price_all_in))
        table.add_row(names(piece.instrument.id), f"{piece.share:.1%}", *amounts, coins_shown(piece.gas) if piece.gas else "-")
    return Group(Text(title, style="bold"), table, "")


def _totals(found: Answer, names: Names) -> RenderableType:
    route = found.route
    rows = [
        ("average price", f"{price_shown(average(found))}  {bps(against_mid(found))} against mid {price_shown(_mid(found))}"),
        ("marginal price", f"{price_shown(found.route.marginal_price)}  the last coin, after its fee"),
        ("gas", named(route.gas) if route.gas else "none"),
        ("at most missed", f"{found.route.gap_bps:.2g} bps of the best that is possible"),
        ("found in", f"{found.time_us:,.0f} µs"),
    ]
    if found.conversion_cost:
        rows.insert(3, ("conversions", f"{named(found.conversion_cost)} beside that"))
    told: list[Text] = [Text.assemble(f"{name:17} ", (text, "bold" if name == "average price" else "")) for name, text in rows]
    if route.best_single is not None:
        told.append(_against(found, "best alone", names(route.best_single.venue), route.best_single))
    told += [_against(found, one.venue, "", one) for one in found.naive if one.quote is not None]
    if route.unplaced:
        why = route.unplaced_reason.text if route.unplaced_reason else named(route.unplaced)
        told.append(Text(f"{'not placed':17} {why}", style="yellow"))
    return Group(*told)


def _against(found: Answer, name: str, place: str, one: Alternative) -> Text:
    price = "-" if one.quote is None else price_shown(float(decimal_of(one.quote) / decimal_of(found.route.quantity)))
    return Text.assemble(f"{name:17} {price}  the split is better by ", gain(better_bps(found, one)), f"  {place}".rstrip())


def _reasons(found: Answer, names: Names) -> Group:
    return Group("", *(Text(f"  {names(one.instrument.id)}: {one.why}", style="dim") for one in found.route.pieces), "")


def _compared(found: Answer, names: Names) -> Group:
    """Every place alone, best first, and below it those that could not."""
    table = new_table(("place", "average", "the split is better by"), ("place",))
    rows = [(better_bps(found, one), one) for one in (*found.route.alternatives, *found.naive)]
    for better, one in sorted(rows, key=lambda row: (row[0] is None, row[0] or 0.0)):
        if better is not None and one.quote is not None:
            name = names(one.venue) if one in found.route.alternatives else one.venue
            table.add_row(name, price_shown(float(decimal_of(one.quote) / decimal_of(found.route.quantity))), gain(better))
    return Group(Text("all of it at one place, after fees and gas", style="bold"), table, *_unable(rows, names))


def _unable(rows: Iterable[tuple[float | None, Alternative]], names: Names) -> list[Text]:
    return [Text(f"  {names(one.venue)}: {one.why}", style="dim") for better, one in rows if better is None]
