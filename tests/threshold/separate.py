"""A party as a process of its own, and the relay that carries its messages: three address spaces, one key."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import NamedTuple, TypeVar

from parties import eid, engine

REPLY_S = 100

T = TypeVar("T")


class Key(NamedTuple):
    """What everybody may know of a key."""

    public_key: bytes
    address: bytes
    fingerprint: bytes


class Party(NamedTuple):
    """One party's process, and our end of its pipe."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection


def begin(party: int, stored: bytes) -> Party:
    """Start a process. It takes its Paillier keys from a stored share, and nothing else."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=live, args=(theirs, party, stored), daemon=True)
    process.start()
    theirs.close()
    return Party(process, ours)


def ask(parties: dict[int, Party], order: Callable[[int], tuple[object, ...]]) -> dict[int, object]:
    """Give each party an order, carry what they write to each other, and return what each answers."""
    for party, one in parties.items():
        one.pipe.send(order(party))
    answers: dict[int, object] = {}
    pipes = {one.pipe: party for party, one in parties.items()}
    while len(answers) < len(parties):
        ready = wait(list(pipes), REPLY_S)
        assert ready, "no party says anything"
        for pipe in ready:
            kind, to, body = pipe.recv()  # type: ignore[union-attr]
            sender = pipes[pipe]  # type: ignore[index]
            if kind == "answer":
                answers[sender] = body
                continue
            for party in [to] if to is not None else [other for other in parties if other != sender]:
                parties[party].pipe.send(("mail", sender, body))
    return answers


def live(pipe: Connection, party: int, stored: bytes) -> None:
    """The process: it does what it is asked until its pipe ends. Presignatures live here and nowhere else."""
    share = engine.KeyShare.from_bytes(stored)
    ready: dict[int, engine.Presignature] = {}
    signings: dict[int, engine.Signing] = {}
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        answer: object = None
        match order:
            case ("keygen", number):
                core = _take_part(pipe, engine.keygen(party, share.parties, share.threshold, eid(number)))
                share = engine.KeyShare.assemble(core, share.aux)
                answer = Key(share.public_key, share.address, share.fingerprint)
            case ("presign", number, signers):
                ready[number] = _take_part(pipe, engine.presign(share, signers, eid(number)))
            case ("sign", number, message):
                signings[number] = ready.pop(number).sign(message)
                answer = signings[number].partial
            case ("combine", number, partials):
                answer = signings.pop(number).combine(partials)
        pipe.send(("answer", None, answer))


def _take_part(pipe: Connection, ceremony: "engine.Ceremony[T]") -> T:
    messages: Sequence[engine.Message] = ceremony.start()
    while True:
        for one in messages:
            pipe.send(("letter", one.to, one.body))
        if ceremony.is_done:
            return ceremony.result()
        _, sender, body = pipe.recv()
        messages = ceremony.receive(sender, body)
