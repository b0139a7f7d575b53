"""The other end of the pipe, for peers in Python: one JSON object a line each way. Standard library alone, as it runs anywhere."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Job = Callable[..., dict[str, Any]]


def serve(jobs: Mapping[str, Job], versions: Mapping[str, str]) -> None:
    """Answer questions until the pipe ends. Whatever a library prints goes to the error stream."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(answer: Mapping[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    tell({"versions": versions})
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = jobs[question.pop("job")](**question)
        except Exception as error:  # noqa: BLE001 -- a peer may fail in any way; the asker is told and goes on
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        tell(answer)


def timed(work: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of `count` calls."""
    now = time.perf_counter_ns
    taken = []
    for _ in range(count):
        start = now()
        work()
        taken.append(now() - start)
    return taken
