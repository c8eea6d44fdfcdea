"""`python -m tests.install_programs`: what tests build and fetch once a user is there before the first test's time begins.

Real servers, and the tools that render manifests: minutes. Where they cannot be had, CI ends here with what to install;
elsewhere their tests are skipped.
"""

from __future__ import annotations

import os
import sys

from layerscope.deployment import kubernetes_tools
from layerscope.deployment.kubernetes_tools import ToolsMissing
from layerscope.stack import programs
from layerscope.stack.programs import ServerError


def main() -> None:
    lacking = []
    for install in (programs.install, kubernetes_tools.install):
        try:
            install(print)
        except (ServerError, ToolsMissing) as error:
            lacking.append(str(error))
    if lacking and os.environ.get("CI"):
        sys.exit("\n".join(lacking))
    if lacking:
        print("The tests that need them will be skipped:", *lacking, sep="\n")


if __name__ == "__main__":
    main()
