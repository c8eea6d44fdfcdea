"""`python -m layerscope.product_skeleton NAME` writes a product's skeleton into this checkout; `make product` calls it."""

from __future__ import annotations

import sys
from pathlib import Path

from layerscope.product_skeleton.skeleton import InvalidName, write

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Write what the product that the command line names lacks, and tell what."""
    if not (CHECKOUT / "Makefile").exists():
        sys.exit("a product is added to a checkout: clone the repository, and call `make product NAME=…` there")
    try:
        written = write(CHECKOUT, " ".join(sys.argv[1:]))
    except InvalidName as error:
        sys.exit(str(error))
    sys.stdout.write("".join(f"wrote {path}\n" for path in written))


if __name__ == "__main__":
    main()
