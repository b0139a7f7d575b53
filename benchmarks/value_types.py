"""Which type carries the vocabulary: frozen msgspec.Struct beside the frozen slotted dataclass."""

import dataclasses
import json

import msgspec

from benchmarks.measure import Result, versus


class StructFill(msgspec.Struct, frozen=True, tag=True):
    order_id: str
    venue: str
    instrument: str
    trade_id: str
    paid: int
    received: int
    fee: int
    at_ns: int


@dataclasses.dataclass(frozen=True, slots=True)
class DataFill:
    order_id: str
    venue: str
    instrument: str
    trade_id: str
    paid: int
    received: int
    fee: int
    at_ns: int


VALUES = ("i1-0", "binance", "binance:ETHUSDT", "77", 4 * 10**8, 1_073_520_000_000, 1_073_520_000, 1_723_161_254_024_619_568)


def run() -> list[Result]:
    struct, data = StructFill(*VALUES), DataFill(*VALUES)
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(StructFill)
    text = encoder.encode(struct)
    peer = "frozen slotted dataclass"
    return [
        versus("construct, 8 fields", lambda: StructFill(*VALUES), peer, lambda: DataFill(*VALUES)),
        versus("compare equal", lambda: struct == StructFill(*VALUES), peer, lambda: data == DataFill(*VALUES)),
        versus("encode to JSON", lambda: encoder.encode(struct), peer + " + json", lambda: json.dumps(dataclasses.asdict(data))),
        versus("decode and validate JSON", lambda: decoder.decode(text), peer + " + json", lambda: _load(text)),
    ]


def _load(text: bytes) -> DataFill:
    found = json.loads(text)
    found.pop("type")
    return DataFill(**found)
