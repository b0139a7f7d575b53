"""`init`: one commented settings file to begin with."""

from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import Json
from agent.cli.show import line, print_json
from agent.cli.templates import TEMPLATE
from agent.domain.errors import UsageError

FILE = Path("isthmus.toml")


def init(path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = FILE, as_json: Json = False) -> None:
    """Write one commented settings file. Nothing in it can trade until venues are filled in and armed."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise UsageError(f"{path} exists already and is not overwritten; name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another place") from None
    if as_json:
        print_json({"written": str(path)})
    else:
        line(f"{path} written; next: edit it, `isthmus keys new main`, `isthmus doctor`")
