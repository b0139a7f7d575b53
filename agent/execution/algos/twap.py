"""Time-weighted: every part of the time gets the same part of the order."""

from agent.domain.algo import Twap


def weights(algo: Twap, count: int) -> list[float]:  # noqa: ARG001 - every algorithm is asked alike
    """One for each of `count` parts, in order; only their proportions count."""
    return [1.0] * count
