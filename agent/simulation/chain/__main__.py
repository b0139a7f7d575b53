"""Gets the sandbox chain ready ahead of time: `python -m agent.simulation.chain`.

`--write-deployment` also regenerates `deployments/31337.json` in a checkout.
"""

import sys
import time

from agent.simulation.chain.world import ensure_world, prepare, write_deployment


def main() -> None:
    """Fetch, compile and cache; then say what there is."""
    began = time.monotonic()
    prepare()
    state, deployment = ensure_world()
    sys.stdout.write(f"{len(deployment.contracts)} contracts, {len(deployment.pools)} pools, {state}\n")
    if "--write-deployment" in sys.argv[1:]:
        sys.stdout.write(f"{write_deployment()}\n")
    sys.stdout.write(f"ready in {time.monotonic() - began:.1f} s\n")


if __name__ == "__main__":
    main()
