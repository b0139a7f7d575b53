"""The page of faults names every row of the catalogue, and only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = {"A": 14, "B": 19, "C": 20, "D": 9, "E": 8, "F": 16}


def test_every_row_is_there_once() -> None:
    found = re.findall(r"^\| ([A-F]\d+) \|", PAGE, re.MULTILINE)
    assert sorted(found) == sorted(f"{letter}{number}" for letter, most in ROWS.items() for number in range(1, most + 1))


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 80
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


def test_every_row_says_how_it_is_shown() -> None:
    for line in PAGE.splitlines():
        if re.match(r"\| [A-F]\d+ \|", line):
            shown, result = (cell.strip() for cell in line.split("|")[4:6])
            assert shown == "later" or shown.startswith("`tests/"), line
            assert (result == "-") == (shown == "later"), line
            assert result in ("-", "holds") or result.startswith("partly: "), line
