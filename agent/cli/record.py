"""`record`: write an exchange's raw market frames to a tape."""

import contextlib
import gzip
from pathlib import Path
from typing import Annotated

import typer

from agent.app import RealClock, settings_of
from agent.cli.options import Config, Json, run_async
from agent.cli.show import line, print_json
from agent.config import Loaded, venue_module
from agent.domain.errors import UsageError
from agent.ports import Tools


def record(
    file: Annotated[Path, typer.Argument(help="Where to write, for example eth.jsonl.gz.")],
    venue: Annotated[str, typer.Option("--venue", help="Which exchange of the settings.")] = "binance",
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="How long.")] = 60,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write an exchange's raw market frames to a tape that `--tape` replays."""
    loaded = settings_of(config)
    section = loaded.venues.get(venue)
    if section is None or not hasattr(venue_module(section.kind, venue), "frames"):
        able = [name for name, one in loaded.venues.items() if hasattr(venue_module(one.kind, name), "frames")]
        raise UsageError(f"no exchange {venue[:40]} in {loaded.path.name}; name one of {', '.join(able) or 'none: add one'}")
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        raise UsageError(f"{file} exists already; choose another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another place") from None
    frames = 0
    try:
        frames = run_async(lambda: _record(loaded, venue, file, seconds))
    finally:
        if not frames:
            with contextlib.suppress(OSError):
                file.unlink()
    if as_json:
        print_json({"file": str(file), "frames": frames})
    else:
        line(f"{frames} frames in {file}; `isthmus demo --tape {file}` replays them")


async def _record(loaded: Loaded, name: str, file: Path, seconds: int) -> int:
    section = loaded.venues[name]
    count = 0
    with gzip.open(file, "wt") as tape:
        async for at_ns, frame in venue_module(section.kind, name).frames(section, Tools(RealClock()), seconds):
            tape.write(f"{at_ns} {frame}\n")
            count += 1
    return count
