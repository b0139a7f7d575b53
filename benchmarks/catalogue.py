"""Which benchmarks there are: the modules here that have a `run() -> list[Result]`."""

import ast
import importlib
from pathlib import Path

from benchmarks.measure import Result

HERE = Path(__file__).parent


def names() -> list[str]:
    """All of them, in the order of the alphabet."""
    return [path.stem for path in sorted(HERE.glob("*.py")) if "\ndef run(" in path.read_text(encoding="utf-8")]


def about(name: str) -> str:
    """The first line of a benchmark's docstring."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def measured(name: str) -> list[Result]:
    found: list[Result] = importlib.import_module(f"benchmarks.{name}").run()
    return found
