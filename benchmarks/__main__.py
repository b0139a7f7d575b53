"""`python -m benchmarks NAME [--json]`: run one benchmark, or `all`."""

import argparse
import importlib
import json
import pkgutil
import platform
from pathlib import Path

from benchmarks.measure import Result

HERE = [str(Path(__file__).parent)]


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(HERE) if m.name not in ("__main__", "measure"))


def show(name: str, results: list[Result]) -> None:
    print(f"\n{name}  ({platform.machine()}, Python {platform.python_version()})")
    for r in results:
        print(f"  {r.what:46} ours {r.ours_us:9.2f} us   {r.peer:28} {r.peer_us:9.2f} us   ratio {r.ratio:6.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*names(), "all"])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    chosen = names() if args.name == "all" else [args.name]
    found = {name: importlib.import_module(f"benchmarks.{name}").run() for name in chosen}
    if args.json:
        print(json.dumps({name: [r._asdict() | {"ratio": r.ratio} for r in rs] for name, rs in found.items()}, indent=2))
        return
    for name, results in found.items():
        show(name, results)


if __name__ == "__main__":
    main()
