"""`python -m benchmarks NAME [--json]`: our code beside its peers, in one run.

NAME is a benchmark, `all` of them, or one of
  list                           what there is
  peers [PEER ...]               install the peers' environments into the cache folder
  optimality [--instances N]     how far from the best answer we and the others are; nothing is timed
  growth [--svg FILE]            cost against the number of sources, as a plot
  page                           measure what the page of benchmarks shows, and rewrite its figures
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import about, measured, names
from benchmarks.measure import Result

OTHER = ("all", "list", "peers", "optimality", "growth", "page")


def show(name: str, results: Sequence[Result]) -> None:
    print(f"\n{name}  ({platform.machine()}, Python {platform.python_version()})", flush=True)
    wide = max((len(r.what) for r in results), default=0)
    for r in results:
        if r.peer_us is not None:
            ours = f"{r.what:{wide}} ours {_us(r.ours_us, r.ours_p99_us)}"
            print(f"  {ours}   {r.peer:32} {_us(r.peer_us, r.peer_p99_us)}   ratio {r.ratio:9.2f}x   {r.note}".rstrip())
    for note in dict.fromkeys(r.note for r in results if r.peer_us is None):
        print(f"  {note}")


def as_json(found: Mapping[str, Sequence[Result]]) -> str:
    return json.dumps({name: [r._asdict() | {"ratio": r.ratio} for r in results] for name, results in found.items()}, indent=2)


def main() -> int:
    args = _arguments()
    match args.name:
        case "list":
            for name in names():
                print(f"{name:14} {about(name)}")
        case "peers":
            return _peers(args.more)
        case "optimality":
            return _optimality(args.instances, args.json)
        case "growth":
            return _growth(args.svg, args.json)
        case "page":
            from benchmarks.page import rewrite

            rewrite(args.more, args.instances, args.svg)
        case chosen:
            found = {}
            for name in names() if chosen == "all" else [chosen]:
                found[name] = measured(name)
                if not args.json:
                    show(name, found[name])
            if args.json:
                print(as_json(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*names(), *OTHER], metavar="NAME")
    parser.add_argument("more", nargs="*", help="for `peers`: which; for `page`: which benchmarks to measure again")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--instances", type=int, default=1_000, help="random instances of `optimality`")
    parser.add_argument("--svg", type=Path, help="where `growth` and `page` write the plot")
    args = parser.parse_args()
    if args.more and args.name not in ("peers", "page"):
        parser.error(f"{args.name} takes no more names")
    return args


def _us(median: float, p99: float | None) -> str:
    return f"{median:10.2f} us" + (f" (p99 {p99:9.2f})" if p99 is not None else " " * 16)


def _peers(chosen: Sequence[str]) -> int:
    from benchmarks.peers.environments import ENVIRONMENTS, PeerMissingError, install

    if unknown := [name for name in chosen if name not in ENVIRONMENTS]:
        print(f"there is no peer {unknown[0]!r}: choose from {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    failed = False
    for name in chosen or ENVIRONMENTS:
        try:
            print(f"{name:10} {ENVIRONMENTS[name].title}: {install(name)}", flush=True)
        except PeerMissingError as error:
            print(f"{name:10} {error}", flush=True)
            failed = True
    return 1 if failed and chosen else 0


def _optimality(instances: int, is_json: bool) -> int:
    from benchmarks.optimality import as_json as written
    from benchmarks.optimality import measure, shown

    report = measure(instances)
    print(json.dumps(written(report), indent=2) if is_json else "\n".join(shown(report)))
    return 1 if report.failures else 0


def _growth(svg: Path | None, is_json: bool) -> int:
    from benchmarks.growth import drawn, measure, table

    growth: Any = measure()
    if svg:
        svg.write_text(drawn(growth), encoding="utf-8")
    print(json.dumps(growth, indent=2) if is_json else "\n".join(table(growth)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
