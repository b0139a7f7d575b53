"""One line of the doctor, and how a failure becomes one."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warn", "fail", "skip"]


class Check(NamedTuple):
    """One line of the doctor. `fix` is what to do when the level is not ok."""

    name: str
    level: Level
    text: str
    fix: str = ""


def failed(name: str, error: BaseException, fix: str) -> Check:
    """A failure in the words of the error; what stands behind the last semicolon of those is the fix."""
    text, _, own = str(error).rpartition("; ")
    return Check(name, "fail", text, own) if text else Check(name, "fail", str(error) or "no answer in time", fix)
