"""python -m alerts secret: a new signing secret, to be shared with one receiver."""

from __future__ import annotations

import sys

from alerts.endpoints import new_secret


def main(arguments: list[str]) -> int:
    if arguments != ["secret"]:
        sys.stderr.write("usage: python -m alerts secret\n")
        return 2
    sys.stdout.write(new_secret() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
