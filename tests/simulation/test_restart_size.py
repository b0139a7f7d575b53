"""A restart with a long past: 100,000 records and 1,000 orders at the exchange. It becomes ready and everything agrees.

How long it takes is measured by `python -m benchmarks restart`, beside the limit of ten seconds; here a wide bound has to do.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 60
CODE = """
import asyncio, json, sys
from pathlib import Path
from agent import observe
from benchmarks import restart

if __name__ == "__main__":
    observe.open_log(level="critical")
    with restart.exchange_beside(Path(sys.argv[1])) as home:
        print(json.dumps(asyncio.run(restart.start(home))._asdict()))
"""


@pytest.mark.timeout(180)
def test_an_agent_with_a_long_past_starts_and_everything_agrees(tmp_path: Path) -> None:
    home, program = tmp_path / "home", tmp_path / "restart_once.py"
    home.mkdir(mode=0o700)
    program.write_text(CODE)
    command = [sys.executable, str(program), str(home)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout)
    sys.stdout.write(f"restart: {found}\n")
    assert found["records"] > 100_000
    assert (found["open_orders"], found["live_parents"]) == (1_000, 1_000)
    assert (found["breaks"], found["sent"]) == (0, 0)
    assert found["seconds"] < BOUND_S
