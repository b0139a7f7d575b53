"""Every fault that a drill knows, by name: what it does, and the rows of the catalogue of faults that it stands for.

Each day draws a few of them with intensities of its own. What strikes is counted, so that a fault which never strikes shows.
"""

import difflib
from collections.abc import Iterable

import msgspec

from agent.domain.errors import UsageError
from agent.simulation.drill.clock import Dice, dice


class Fault(msgspec.Struct, frozen=True):
    """`low` to `high`: its chance each time it could strike, drawn for each day. `halts`: a person must look afterwards.

    `high` 0: it follows from others and is only counted. `needs`: another fault without which it has nothing to strike.
    """

    rows: str
    text: str
    low: float = 0.02
    high: float = 0.4
    halts: bool = False
    needs: str = ""


FAULTS: dict[str, Fault] = {
    # -- the process and its disk
    "kill": Fault("A1", "kill -9 at a record of the journal, often while an order is under way, then a new start", 1, 1),
    "kill-in-recovery": Fault("A1", "kill -9 again while the new start still asks what became of its orders", 0.5, 1, needs="kill"),
    "power-loss": Fault("A2", "the machine loses power: records that were not secured yet are gone", 0.5, 1, needs="slow-disk"),
    "slow-disk": Fault("A2 A4", "records are secured late, by up to a second", 0.2, 1),
    "disk-full": Fault("A3", "the journal refuses a record; the process ends and starts again with room", 0.003, 0.02),
    "disk-error": Fault("A4", "the disk refuses to secure what was written; the process ends and starts again", 0.003, 0.02),
    "bug": Fault("A9", "an adapter fails in a way that nobody expected; the process ends and starts again", 0.005, 0.03),
    "clock-ahead": Fault("A10", "the agent's clock is wrong by seconds from the start", 0.5, 1),
    "clock-step": Fault("A10", "the agent's clock is set forth or back while it works", 0.01, 0.05),
    "burst": Fault("A11", "market data arrives in floods", 0.02, 0.2),
    "stop": Fault("A14", "the process is asked to stop in the middle of its work, then starts again", 1, 1),
    # -- exchanges: requests
    "reply-lost": Fault("B1", "an exchange carries a request out and the reply is lost"),
    "request-lost": Fault("B1", "a request never reaches the exchange, and nobody knows"),
    "accept-late": Fault("B1", "an exchange says 504 and carries the request out seconds later"),
    "timeout": Fault("B1", "an exchange carries a request out and never answers"),
    "error-500": Fault("B1", "an exchange answers 500: perhaps it was carried out, perhaps not"),
    "duplicate-id": Fault("B1 B19", "a request reaches the exchange twice, and what is answered is that the id was used"),
    "too-many": Fault("B2", "429: certainly not carried out"),
    "banned": Fault("B2", "418: nothing is carried out for half a minute", 0.01, 0.04),
    "rejected": Fault("B12 B16", "an exchange refuses an order for a reason of its own"),
    "slow-reply": Fault("B5", "replies arrive after the news of what they answer", 0.1, 0.6),
    # -- exchanges: their streams and lists
    "twice": Fault("B4", "news is delivered twice"),
    "reordered": Fault("B5", "news is delivered in another order"),
    "swallowed": Fault("B8", "news is not delivered at all", 0.01, 0.2),
    "late-news": Fault("B5", "news is delivered seconds late", 0.05, 0.4),
    "book-gap": Fault("B8", "the book's numbers jump", 0.02, 0.2),
    "stalled": Fault("B9", "a stream stays open and silent until its age betrays it", 0.005, 0.03),
    "cut": Fault("B10", "a stream breaks", 0.005, 0.05),
    "no-connection": Fault("B10", "connecting fails", 0.1, 0.7),
    "no-snapshot": Fault("B11", "a snapshot fails or hangs"),
    "cut-list": Fault("B11", "the list of open orders is cut off without a word", 0.2, 0.8),
    "cut-balances": Fault("B11", "the list of balances is cut off, which the venue says"),
    # -- exchanges: what they do by themselves
    "late-fill": Fault("B6", "an order trades after it was told cancelled", 0.3, 0.9, halts=True),
    "bust": Fault("B7", "a trade is taken back", 0.002, 0.02, halts=True),
    "overfill": Fault("B7", "an order trades more than was ordered", 0.05, 0.2, halts=True),
    "amended": Fault("B7", "the exchange cuts an order that rests", 0.1, 0.5),
    "maintenance": Fault("B13", "an exchange goes down for a while, and on its return everything was cancelled", 0.003, 0.015),
    "cancel-only": Fault("B13", "an exchange takes cancels alone for a while", 0.003, 0.02),
    "dead-man": Fault("B14 B15", "the dead man's switch is in use, and arming it fails at times", 0.1, 0.4),
    "revoked": Fault("B16", "every request of an exchange is answered 401 for a while", 0.01, 0.05),
    "by-hand": Fault("B6 C4", "a person trades beside the agent with the same account", 0.003, 0.01, halts=True),
    "deposit": Fault("B11", "coins arrive that nobody announced", 0.002, 0.008, halts=True),
    "nonsense": Fault(
        "F1 F16", "the client wishes what makes no sense: nothing, too much, too late, a name that no venue takes", 1, 1
    ),
    "runaway": Fault("F15", "the client wishes twenty times at once", 1, 1),
    "crossed": Fault("B17", "parents on both sides meet each other", 1, 1),
    "asked-twice": Fault("B19", "the client sends the same wish twice", 1, 1),
    # -- the chain
    "spike": Fault("C1 C10", "blocks cost ten to fifty times more for a while", 0.05, 0.3),
    "underpriced": Fault("C1", "a node refuses what others would take, because it pays too little", 0.02, 0.3),
    "older-mined": Fault("C2", "the block takes an older transaction of the same number", 0.5, 0.9, needs="deaf"),
    "dropped": Fault("C3", "nodes forget what waits", 0.05, 0.4),
    "foreign": Fault("C4", "somebody else uses the wallet's key", 0.002, 0.01, halts=True),
    "deaf": Fault("C1 C5", "blocks come without our transactions for a while", 0.05, 0.4),
    "reorg": Fault(
        "C6", "one to seven blocks are taken back; their transactions wait again, are mined again, or are lost", 0.05, 0.4
    ),
    "revived": Fault(
        "C6",
        "a transaction that had reverted, or had been taken back, succeeds in the blocks of a reorganisation",
        0,
        0,
        halts=True,
    ),
    "no-blocks": Fault("C7", "the chain stands still for a while", 0.003, 0.015),
    "lagging": Fault("C8", "the node that answers is some blocks behind", 0.05, 0.5),
    "node-silent": Fault("C9", "a node takes a transaction and its answer is lost"),
    "node-forgot": Fault("C9", "a node says nothing and never had the transaction"),
    "nonce-error": Fault("C9", "a node answers `nonce too low` or `already known` to what it takes"),
    "reverts": Fault("C11", "transactions fail in their block", 0.2, 0.8),
    "wild-price": Fault("C15", "the pool's price is a third off for a while", 0.01, 0.05),
    "sandwich": Fault("C13", "somebody moves the pool before we trade", 0.05, 0.3),
    # -- keys, and people
    "kill-switch": Fault("K1", "a person pulls the kill switch, which cancels everything at the exchanges", 1, 1),
    "slow-signer": Fault("E1", "the signer takes seconds", 0.05, 0.4),
    "no-signature": Fault("E2", "the signer refuses", 0.02, 0.2),
}


def check_names(names: Iterable[str]) -> list[str]:
    """The same names. Raises UsageError for one that no fault has."""
    found = list(names)
    if unknown := [name for name in found if name not in FAULTS]:
        near = difflib.get_close_matches(unknown[0][:40], FAULTS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        raise UsageError(f"no fault is named {unknown[0][:40]!r}{meant} `isthmus simulate --list-faults` names them all")
    return found


class Weather:
    """Which faults strike today, how often, and how often they did. `clear` ends them all."""

    def __init__(self, seed: int, only: Iterable[str] = ()) -> None:
        self.dice = dice(seed, "weather")
        self.strength: dict[str, float] = {}
        self.struck: dict[str, int] = {}
        names = check_names(only)
        drawn = names or self.dice.some([name for name, fault in FAULTS.items() if fault.high], self.dice.between(0, 12))
        for name in dict.fromkeys(one for pair in drawn for one in (pair, FAULTS[pair].needs) if one):
            fault = FAULTS[name]
            self.strength[name] = self.dice.seconds(fault.low, fault.high)
        self.is_keyed_elsewhere = seed % 3 == 0 or self.has("slow-signer")  # the keys are in no process of ours

    @classmethod
    def calm(cls) -> "Weather":
        """A day without faults."""
        found = cls(0)
        found.clear()
        return found

    def has(self, name: str) -> bool:
        """Whether today knows this fault at all."""
        return name in self.strength

    def strikes(self, name: str, dice_: Dice | None = None) -> bool:
        """Whether it strikes now; counted if so."""
        strength = self.strength.get(name, 0.0)
        if not strength or not (dice_ or self.dice).chance(strength):
            return False
        self.count(name)
        return True

    def count(self, name: str) -> None:
        self.struck[name] = self.struck.get(name, 0) + 1

    def clear(self) -> None:
        self.strength = {}

    @property
    def halts(self) -> set[str]:
        """What struck and leaves something to explain for a person."""
        return {name for name in self.struck if FAULTS[name].halts}
