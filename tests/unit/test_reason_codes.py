"""Every reason code that the program can give is documented, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORM = re.compile(r"[A-Z]{2,}(_[A-Z]+)+|OUTLIER")
CODE = re.compile(r"`([A-Z][A-Z_]{3,})`")


def given() -> set[str]:
    """First arguments of `Reason(...)`, and the constants that hold codes, in the stages and the market."""
    found: set[str] = set()
    for folder in ("risk", "routing", "market", "engine"):
        for path in (ROOT / "agent" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and FORM.fullmatch(node.value):
                    found.add(node.value)
    return found - {"CANCEL_ONLY"}  # what a venue lets us do, and no reason of a refusal


def test_the_page_lists_exactly_the_codes_that_exist() -> None:
    page = set(CODE.findall((ROOT / "docs" / "reason-codes.md").read_text()))
    assert page == given()
