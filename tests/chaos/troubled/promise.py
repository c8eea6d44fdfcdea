"""What holds of an upload whatever its circumstances were: never given up meanwhile, and in the end as if there had been none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from layerscope.schemas import keys
from tests.chaos.ledger import Ledger, outcomes
from tests.chaos.troubled.troubled_stack import Troubled
from tests.stack import RealStack, eventually, layerscope

SETTLE_SECONDS = 900  # a busy machine takes long; what is lost would take for ever


@contextmanager
def promised(troubled: Troubled, name: str, content: bytes) -> Iterator[str]:
    """Upload a model that nobody delivers before the block begins to; see after the block that the promise was kept.

    The block brings the circumstances, and ends them.
    """
    real, ledger, subject = troubled.real, Ledger(troubled.real, [content]), f"digits/{name}/1"
    troubled.hold_back()
    ledger.put(subject, 0)
    try:
        yield subject
    finally:
        troubled.deliver()
    given_up = failures(real, subject)
    print(f"\n{name}: complete {ledger.settle(SETTLE_SECONDS):.0f} s after all was well again")
    calm = Ledger(real, [content])
    calm.put(f"digits/{name}-calm/1", 0)
    calm.settle(SETTLE_SECONDS)
    assert given_up == failures(real, subject) == []
    assert outcomes(real, subject) == outcomes(real, f"digits/{name}-calm/1")


def failures(real: RealStack, subject: str) -> list[str]:
    """Return the keys of what was recorded as failed of a model."""
    listed = (
        one.key
        for place in (keys.MANIFESTS, keys.UPLOADS)
        for one in real.store.list(keys.PRODUCTS, f"{place}{subject}/")
    )
    return [key for key in listed if key.endswith(".failed.json")]


def named(troubled: Troubled, subject: str, in_status: str, in_why: str = "") -> None:
    """Wait until `status` names the cause, and `why` does."""

    def status() -> str:
        return _said(troubled, "status")

    def reason() -> str:
        return why(troubled, subject)

    eventually(lambda: in_status in status(), SETTLE_SECONDS, 1, status)
    eventually(lambda: in_why in reason(), SETTLE_SECONDS, 1, reason)


def why(troubled: Troubled, subject: str) -> str:
    """Return what `why` says of a model, in one line."""
    return _said(troubled, "why", subject)


def _said(troubled: Troubled, *command: str) -> str:
    done = layerscope(*command, "--at", str(troubled.real.stack.directory), COLUMNS="500")
    return re.sub(r"\s+", " ", done.stdout + done.stderr[-400:])  # where it broke, the end says how
