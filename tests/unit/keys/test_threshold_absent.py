"""Without the compiled engine nothing else is missing, and whoever asks for it is told what to do."""

import sys

import pytest

from agent.domain.errors import SignerError


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isthmus_threshold", None)
    monkeypatch.delitem(sys.modules, "agent.keys.threshold.engine", raising=False)
    with pytest.raises(SignerError, match=r"not built; run: make mpc") as caught:
        import agent.keys.threshold.engine  # noqa: F401
    assert "\n" not in str(caught.value)
