"""How a parent order is to be worked over time: which algorithm, with which parameters, under their usual names."""

import msgspec


class Twap(msgspec.Struct, frozen=True, tag="twap"):
    """Equal parts over `duration_ns`, one each `interval_ns`.

    `randomise_size_pct`: each part is larger or smaller by up to that. `randomise_time_pct`: each but the first comes later by up
    to that part of an interval. `catch_up_pct`: what was missed is made up with at most that much of a part at once.
    """

    duration_ns: int
    interval_ns: int
    randomise_size_pct: int = 0
    randomise_time_pct: int = 0
    catch_up_pct: int = 300


class Shortfall(msgspec.Struct, frozen=True, tag="is"):
    """Implementation shortfall: sooner than a TWAP, the more so the higher the urgency.

    `urgency_pct` is 100 kappa T of Almgren and Chriss: kappa T says how many times the optimal holding falls to 1/e within the
    duration, so 0 is a TWAP and 300 trades half within the first quarter. The other parameters are a TWAP's.
    """

    duration_ns: int
    interval_ns: int
    urgency_pct: int
    randomise_size_pct: int = 0
    randomise_time_pct: int = 0
    catch_up_pct: int = 300


Algo = Twap | Shortfall
