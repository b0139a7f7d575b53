"""`python -m agent` and the `isthmus` command."""

from agent.cli import main

if __name__ == "__main__":
    main()
