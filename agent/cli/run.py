"""`run`: the agent as a process of its own."""

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.app import running_engine, settings_of
from agent.cli.options import Config, Json, Live, ask, run_async
from agent.cli.outcome import differences, exit_code, names_at, names_in, result, started, tell
from agent.cli.progress import watch
from agent.cli.show import line, print_json, short
from agent.config import Loaded
from agent.domain.errors import IsthmusError, VenueError
from agent.engine.summary import summary

if TYPE_CHECKING:
    from agent.engine.loop import Engine

DEMO_MARK = "demo"  # a file in the home folder of a demo


def run(
    config: Config = None,
    live: Live = False,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Leave when no order is left to work; --json implies it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the agent: replay the journal, settle what was in doubt, resume live orders, and serve the desk until stopped."""
    loaded = settings_of(config)
    is_demo = (loaded.home / DEMO_MARK).exists()
    if is_demo:
        _find_sandbox(loaded)
    is_short = until_idle or as_json or is_demo
    loop = None if is_short else _fast_loop()
    code, report = run_async(lambda: _run(loaded, live=live, until_idle=is_short, quiet=as_json), loop)
    if is_demo:
        _stop_sandbox(loaded, quiet=as_json)
    if as_json:
        print_json(report)
    raise typer.Exit(code)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop of the extra [fast]; None where it is not installed: then asyncio's own serves."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


async def _run(loaded: Loaded, *, live: bool, until_idle: bool, quiet: bool) -> tuple[int, dict[str, Any]]:
    async with running_engine(loaded, live=live, ask=ask, is_long=not until_idle) as engine:
        resumed = await started(engine, quiet=quiet)
        if not quiet:
            _tell_resumed(engine, resumed)
        events = engine.events()
        telling = asyncio.create_task(watch(events, engine.state, names_at(engine), quiet=quiet))
        try:
            if until_idle:
                for name in resumed:
                    await engine.finished(name)
            else:
                if not quiet:
                    line(f"serving the desk in {loaded.home}; Ctrl-C or SIGTERM stops it")
                await engine.stopped()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        return await _end(engine, resumed, quiet=quiet)


async def _end(engine: "Engine", resumed: Sequence[str], *, quiet: bool) -> tuple[int, dict[str, Any]]:
    if engine.failure:
        raise IsthmusError(engine.failure)
    was_stopped = engine.is_stopping
    breaks = None if was_stopped else await differences(engine)
    done = [summary(engine.state, name) for name in resumed]
    code = exit_code(engine.state, [] if was_stopped else done, [] if was_stopped else breaks)
    if not quiet:
        for one in done:
            tell(one, breaks, names_in(engine.state))
        if not done and breaks is not None:
            line(f"nothing was left to do; {len(breaks)} breaks")
    status = "stopped" if was_stopped else "ok" if code == 0 else "failed"
    orders = [result(engine.state, one, breaks) for one in done]
    return code, {"status": status, "orders": orders, "breaks": breaks, "exit_code": code}


def _tell_resumed(engine: "Engine", resumed: Sequence[str]) -> None:
    line(f"journal: {engine.state.seq} records, {len(engine.state.orders)} orders, {len(resumed)} parents to resume")
    for name in resumed:
        parent = engine.state.parents[name]
        line(f"resumed {name}: {short(parent.filled)} of {short(parent.intent.quantity)} filled, routed {parent.slices} times")


def _find_sandbox(loaded: Loaded) -> None:
    from agent.simulation import world

    if world.status(loaded.home) is None:
        raise VenueError("the demo was finished, or its sandbox has ended; `isthmus demo` starts a new one")


def _stop_sandbox(loaded: Loaded, *, quiet: bool) -> None:
    """A demo that was interrupted is finished here; nothing is left running."""
    from agent.simulation import world

    if world.down(loaded.home) and not quiet:
        line("the demo is finished; its sandbox is stopped")
