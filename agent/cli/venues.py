"""`venues`: the scorecard of each venue, from the journal alone: what was seen, what routing charges for it, who is avoided."""

import time
from typing import Any

from rich.text import Text

from agent.app import settings_of
from agent.cli.options import Config, Json
from agent.cli.reading import replay
from agent.cli.show import line, out, print_json
from agent.cli.tables import new_table
from agent.routing.scorecard import CHARGED_EVERY_S, SECOND_NS, Card, Mean, Scoring, charge, degraded, terms

COLUMNS = ("venue", "n", "ack ms", "filled", "reject", "revert", "drift", "1 s", "10 s", "charge")


def venues(config: Config = None, as_json: Json = False) -> None:
    """How venues did, and what that makes them cost. Reads the journal, whether an agent runs or not."""
    loaded = settings_of(config, with_venues=False)
    state, scoring, now_ns = replay(loaded), loaded.scoring(), time.time_ns()
    cards, avoided = state.scores.cards, degraded(state.scores.cards, scoring, now_ns)
    told = {name: _told(card, scoring, now_ns, avoided.get(name, "")) for name, card in sorted(cards.items())}
    if as_json:
        print_json({"venues": told})
        return
    if not cards:
        line("no venue has been traded at yet; `isthmus order submit` begins")
        return
    table = new_table(COLUMNS, left=("venue",))
    for name, card in sorted(cards.items()):
        table.add_row(*_row(name, card, told[name]["charge_pips"]), style="red" if name in avoided else "")
    out.print(table)
    line("n: orders; drift, 1 s, 10 s, charge in bps, positive is against you", "dim")
    for name, one in told.items():
        if one["avoided"]:
            out.print(Text(f"  {one['avoided']}", style="red", overflow="fold"))
        if one["charge_why"]:
            out.print(Text(f"  {name}: charged {one['charge_why']}", style="dim", overflow="fold"))


def _row(name: str, card: Card, charge_pips: int) -> list[str]:
    shares = (_seen(mean, "{:.0%}") for mean in (card.filled, card.rejected, card.reverted))
    costs = (_seen(mean, "{:+.1f}", 100) for mean in (card.drift_pips, card.markout_1s_pips, card.markout_10s_pips))
    return [name, str(card.orders), _seen(card.ack_ms, "{:,.0f}"), *shares, *costs, f"{charge_pips / 100:.2f}"]


def _seen(mean: Mean, form: str, scale: float = 1) -> str:
    return form.format(mean.value / scale) if mean.weight else "-"


def _told(card: Card, scoring: Scoring, now_ns: int, avoided: str) -> dict[str, Any]:
    """A card for scripts. `weight`: how many fresh orders the averages are worth."""
    turn = now_ns // (CHARGED_EVERY_S * SECOND_NS)
    cost = charge(card, scoring, turn)
    means = {name: getattr(card, name) for name in Card.__struct_fields__ if isinstance(getattr(card, name), Mean)}
    return {
        "orders": card.orders,
        **{name: {"mean": mean.value, "weight": mean.weight} if mean.weight else None for name, mean in means.items()},
        "charge_pips": cost.pips if scoring.is_charged else 0,
        "charge_why": cost.why if scoring.is_charged else "",
        "terms_pips": {part.name: part.pips + 0.0 for part in terms(card, scoring, turn * CHARGED_EVERY_S * SECOND_NS)},
        "avoided": avoided,
    }
