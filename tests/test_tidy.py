"""The laws of the house that can be read off the source: who may make what, where no float may be, and what is never named."""

import ast
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AGENT = ROOT / "agent"
SOURCES = sorted(AGENT.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

BANNED_NAMES = {"utils", "helpers", "common", "shared", "base", "core", "manager", "handler", "service", "misc"}
LINES_MAX = 400
LONGER: dict[str, str] = {
    # file -> why it is one idea all the same
    "agent/ports.py": "every seam of the program on one page",
}
MONEY = ("agent/domain", "agent/ledger", "agent/settlement", "agent/risk")
FLOATS = {
    # (file, enclosing function or class) -> why a float is no money there
    ("agent/domain/price.py", "bps_between"): "an opinion for reports",
    ("agent/domain/price.py", "decimal_of"): "a division of Decimals, for printing",
    ("agent/domain/route.py", "RoutePiece"): "opinions of the router, kept with the exact amounts beside them",
}
MAKERS = {
    # constructor -> where it may be called, and why
    "Approved": {"agent/risk/gate.py": "the only gate"},
    "SignedRequest": {"agent/keys/": "where the keys are", "agent/simulation/drill/play.py": "keys of play money"},
    "SignedTransaction": {
        "agent/keys/": "where the keys are",
        "agent/simulation/drill/play.py": "keys of play money on a chain that is a list",
        "agent/engine/supervise.py": "broadcasts once more the bytes that the keys signed and the journal kept",
    },
    "SignedTyped": {"agent/keys/": "where the keys are"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def places(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the function or class at the module's top level that holds it.

    What stands in an f-string is left out: it is printed for people and never becomes money.
    """
    for top in tree.body:
        where = getattr(top, "name", "")
        printed = {id(node) for text in ast.walk(top) if isinstance(text, ast.JoinedStr) for node in ast.walk(text)}
        for node in ast.walk(top):
            if id(node) not in printed:
                yield where, node


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_gate_approves_and_only_the_keys_sign(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and called(node) in MAKERS:
            allowed = MAKERS[called(node)]
            assert name_of(path).startswith(tuple(allowed)), (
                f"line {node.lineno}: {called(node)} is made in {', '.join(allowed)} alone"
            )


def is_float(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=float()) | ast.Name(id="float") | ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return True
    return False


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith(MONEY)], ids=name_of)
def test_money_never_meets_a_float(path: Path) -> None:
    found = [(where, getattr(node, "lineno", 0)) for where, node in places(tree_of(path)) if is_float(node)]
    assert [(where, line) for where, line in found if (name_of(path), where) not in FLOATS] == []


def test_the_exceptions_are_still_needed() -> None:
    for file, where in FLOATS:
        assert any(is_float(node) for place, node in places(tree_of(ROOT / file)) if place == where), (file, where)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_broad_except(path: Path) -> None:
    """Only a clean-up that ends in `raise` may look at every exception: it swallows none."""
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)} if node.type else broad
            passes_on = caught == {"BaseException"} and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            assert not broad & caught or passes_on, f"line {node.lineno}: a broad except"
        if isinstance(node, ast.Call) and called(node) == "suppress":
            assert not broad & {one.id for one in node.args if isinstance(one, ast.Name)}, f"line {node.lineno}: a broad suppress"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "a module opens with a docstring"
    assert not BANNED_NAMES & {part.removesuffix(".py") for part in Path(name_of(path)).parts}, "a banned name"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_readable(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_MAX or name_of(path) in LONGER, f"{lines} lines: split it, or list it here with a reason"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|NotImplemented" + "Error", text)
    assert found == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_nothing_of_ours_is_mocked(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.startswith("unittest.mock")]


# -- what the repository never names -----------------------------------------------------------------------------------

SKIPPED = {".venv", ".git", "node_modules", "dist", "build", "__pycache__", ".isthmus"}
# In pieces, so that this file does not name them either.
HOSTS = ("pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "registry.yarn" + "pkg.com", "crates" + ".io")
MACHINE = ("/wo" + "rk/", "/ro" + "ot/")


def texts() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if (
            path.is_file()
            and not SKIPPED & set(parts)
            and not any(part.endswith("_cache") or part == ".hypothesis" for part in parts)
        ):
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_registry_and_no_machine_is_named() -> None:
    found = [f"{name_of(path)}: {word}" for path, text in texts() for word in (*HOSTS, *MACHINE) if word in text]
    assert found == []


def test_requirements_come_from_no_address() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
        assert [
            line for line in lines if "://" in line or " @ " in line or line.startswith(("-i", "--index", "--extra", "-f"))
        ] == []


def test_tests_stay_on_loopback() -> None:
    for address in (("192.0.2.1", 80), ("2001:db8::1", 80), ("a.name.example", 80)):
        with pytest.raises(OSError, match="tests stay on loopback"):
            socket.create_connection(address, timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
