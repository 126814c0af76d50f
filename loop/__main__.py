"""python -m loop: the same as the command `homeostat`, without relying on PATH."""

from loop.cli import main

if __name__ == "__main__":
    main()
