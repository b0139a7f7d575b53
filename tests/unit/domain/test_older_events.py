"""What an older agent wrote is still read: new fields have defaults, and mean that nobody looked."""

from agent.domain.amount import Amount, group_asset
from agent.domain.events import Routed, RoutePiece
from agent.journal.codec import Row, decode, encode, seal

ETH, USDT = group_asset("ETH"), group_asset("USDT")
ONE = Amount(10**18, ETH)
OLD = (
    b'{"type":"Routed","intent_id":"i1","slice_index":0,"quantity":{"units":"1000000000000000000","asset":{"symbol":"ETH","home":"*",'
    b'"decimals":18,"group":"ETH","address":""}},"pieces":[{"instrument":"cex:ETH/USDT","base":{"units":"1000000000000000000",'
    b'"asset":{"symbol":"ETH","home":"*","decimals":18,"group":"ETH","address":""}},"quote":{"units":"2","asset":{"symbol":"USDT",'
    b'"home":"*","decimals":18,"group":"USDT","address":""}},"share":1.0,"price":2.0,"price_all_in":2.0,"fee_pips":1000,"gas":{"units":'
    b'"0","asset":{"symbol":"USDT","home":"*","decimals":18,"group":"USDT","address":""}},"why":"cheapest"}],"quote":{"units":"2",'
    b'"asset":{"symbol":"USDT","home":"*","decimals":18,"group":"USDT","address":""}},"alternatives":[],"rejected":[]}'
)


def test_a_route_of_an_older_agent_is_one_that_charged_nothing_and_saw_no_middle() -> None:
    piece = RoutePiece("cex:ETH/USDT", ONE, Amount(2, USDT), 1.0, 2.0, 2.0, 1_000, Amount(0, USDT), "cheapest")
    expected = Routed("i1", 0, ONE, (piece,), Amount(2, USDT), (), ())
    told = decode(Row(1, 1, OLD, seal("00" * 32, 1, 1, OLD))).event
    assert told == expected
    assert (expected.mid, expected.decided_ns, piece.charge_pips) == (None, 0, 0)
    assert len(encode(expected)) > len(OLD), "the new fields are written"
