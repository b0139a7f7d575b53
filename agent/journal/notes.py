"""What a venue wants to find again after a restart, such as the end of a ban: a small file of plain text beside the journal.

Nothing that money depends on is here; a file that cannot be read or written is as good as an empty one.
"""

import contextlib
import json
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

FILE_BYTES_MAX = 1 << 16
TEXT_MAX = 200


class Notes(MutableMapping[str, str]):
    """A mapping in a file (0600), written whole at each change. Owned by one venue of one agent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = _read(path)

    def __getitem__(self, name: str) -> str:
        return self._kept[name]

    def __setitem__(self, name: str, text: str) -> None:
        self._kept[name] = text[:TEXT_MAX]
        self._write()

    def __delitem__(self, name: str) -> None:
        del self._kept[name]
        self._write()

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def _write(self) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(OSError):
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(self._kept, file)
            draft.replace(self._path)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(text)[:TEXT_MAX] for name, text in found.items()} if isinstance(found, dict) else {}
