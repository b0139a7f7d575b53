"""Takes the picture in the README: runs the demo, as it is, and draws what it printed. `python docs/picture.py`"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100
TARGET = Path(__file__).with_name("demo.svg")
FONTS = re.compile(r"@font-face \{.*?\}", re.S)  # a picture loads nothing from anywhere


def main() -> None:
    isthmus = Path(sys.executable).with_name("isthmus")
    env = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([isthmus, "demo"], cwd=folder, env=env, capture_output=True, check=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(last_frames(done.stdout.decode())))
    TARGET.write_text(FONTS.sub("", console.export_svg(title="make demo")))


def last_frames(text: str) -> str:
    """What stays on the screen: lines that a progress bar overwrote are gone."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\x1b[2K", "").split("\n"))


if __name__ == "__main__":
    main()
