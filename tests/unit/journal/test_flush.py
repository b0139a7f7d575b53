"""The flusher: one flush for any number of wishes, none of them lost, and an end that always comes."""

import threading

import pytest

from agent.domain.errors import JournalError
from agent.journal import flush
from agent.journal.flush import Flusher


def test_what_was_wished_is_flushed_before_it_closes() -> None:
    flushed = []
    flusher = Flusher(lambda: flushed.append(1), "test")
    for _ in range(100):
        flusher.wake()
    flusher.close()
    assert 1 <= len(flushed) <= 3


def test_each_wish_is_followed_by_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush, "PAUSE_S", 0.0)
    done = threading.Semaphore(0)
    flusher = Flusher(done.release, "test")
    for _ in range(300):
        while done.acquire(blocking=False):
            pass
        flusher.wake()
        assert done.acquire(timeout=30), "a wish was lost"
    flusher.close()


def test_a_wish_to_close_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It falls right between the pause and the moment in which earlier wishes are forgotten."""
    monkeypatch.setattr(flush, "PAUSE_S", 0.0)
    forget, flushed = threading.Event.clear, []
    flusher = Flusher(lambda: flushed.append(1), "test")
    closing = threading.Thread(target=flusher.close, daemon=True)

    def close_first(event: threading.Event) -> None:
        if event is flusher._wanted and not closing.ident:
            closing.start()
            assert flusher._closing.wait(30)
            while not event.is_set():
                pass
        forget(event)

    monkeypatch.setattr(threading.Event, "clear", close_first)
    flusher.wake()
    flusher._thread.join(10)
    assert not flusher._thread.is_alive()
    assert flushed


def test_a_failure_is_kept_and_nothing_is_tried_again() -> None:
    tried = []

    def fails() -> None:
        tried.append(1)
        raise JournalError("the disk is gone")

    flusher = Flusher(fails, "test")
    flusher.wake()
    flusher._thread.join(30)
    assert flusher.failure == "the disk is gone"
    flusher.wake()
    flusher.close()
    assert len(tried) == 1
