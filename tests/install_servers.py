"""`python -m tests.install_servers`: what tests need of real servers is built and fetched before the first test's time begins.

Minutes, once a user. Where a program is missing, CI ends here with what to install; elsewhere their tests are skipped.
"""

from __future__ import annotations

import os
import sys

from layerscope.stack import servers


def main() -> None:
    try:
        servers.install(print)
    except servers.ServerError as error:
        if os.environ.get("CI"):
            sys.exit(str(error))
        print(f"The tests of real servers will be skipped:\n{error}")


if __name__ == "__main__":
    main()
