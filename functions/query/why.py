"""The answer to *why*: the way of an upload station by station, where it stands, and what would help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from layerscope.functions.query.why_facts import WhyFacts, ago, length
from layerscope.functions.query.why_product import index_finding, product_finding
from layerscope.functions.query.why_queue import in_line, place_of
from layerscope.functions.query.why_upload import upload_finding
from layerscope.schemas.products import declared_products, product_named
from layerscope.schemas.why import StepName, WhyAnswer, WhyCode, WhyFinding, WhyStep
from layerscope.stores.catalogue import Standing

URGENCY: Final[tuple[WhyCode, ...]] = (
    "not-running",
    "nobody-reads",
    "stands-still",
    "log-unreachable",
    "failed",
    "asked-again",
    "being-computed",
    "waits",
    "not-asked",
    "not-announced",
    "index-unreachable",
    "index-behind",
    "no-dataset",
    "refused",
)
"""Of several findings that are no mere consequence of another, the one to tell first."""


def why(facts: WhyFacts, product: str | None = None) -> WhyAnswer:
    """Answer for a model version, or for one product of it.

    Raises:
        KeyError: there is no product of this name.
    """
    identity = facts.identity
    others: tuple[WhyFinding, ...] = ()
    if product is not None:
        finding = product_finding(facts, product)
    else:
        finding, others = _whole(facts)
    return WhyAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        product=product,
        finding=finding,
        steps=tuple(_steps(facts, product)),
        others=others,
        notes=tuple(_notes(facts)),
    )


def _whole(facts: WhyFacts) -> tuple[WhyFinding, tuple[WhyFinding, ...]]:
    upload = upload_finding(facts)
    if upload.code != "complete":
        return upload, ()
    findings = [product_finding(facts, one.declared.name) for one in declared_products()]
    index = index_finding(facts)
    others = (*findings, *([index] if index else []))
    open_ones = [one for one in others if one.state in ("computing", "failed")]
    first = _most_urgent(open_ones)
    counted = _counted(findings)
    if first is None:
        return WhyFinding(
            of="upload", state="complete", code="complete", message=f"Nothing is open: {counted}."
        ), others
    state = "computing" if any(one.state == "computing" for one in findings) else first.state
    message = f"Of the products, {counted}. {first.message}"
    return WhyFinding(of=first.of, state=state, code=first.code, message=message, help=first.help), others


def _most_urgent(findings: Iterable[WhyFinding]) -> WhyFinding | None:
    own = [one for one in findings if one.code in URGENCY]
    return min(own, key=lambda one: URGENCY.index(one.code), default=None)


def _counted(findings: Iterable[WhyFinding]) -> str:
    states = [one.state for one in findings]
    said = [
        f"{states.count(state)} {state}" for state in ("complete", "computing", "refused", "failed") if state in states
    ]
    return ", ".join(said)


def _steps(facts: WhyFacts, product: str | None) -> Iterator[WhyStep]:
    if facts.standing is None:
        yield WhyStep(step="upload", ok=False, found=upload_finding(facts).message)
        return
    yield _upload_step(facts, facts.standing)
    yield from _reading_steps(facts, facts.standing)
    if product is not None and facts.standing.facts is not None:
        yield from _product_steps(facts, facts.standing, product)
    index = index_finding(facts) if product is None else None
    if index is not None and facts.standing.record is not None:
        ok = {"complete": True, "index-unreachable": None}.get(index.code, False)
        yield WhyStep(step="index", ok=ok, found=index.message)


def _upload_step(facts: WhyFacts, standing: Standing) -> WhyStep:
    upload = standing.upload
    when = f"{upload.modified:%Y-%m-%d %H:%M:%S} UTC, {ago(facts.now, upload.modified)}"
    beside = f", with {', '.join(sorted(upload.sidecars))}" if upload.sidecars else ""
    return WhyStep(step="upload", ok=True, found=f"{upload.key}, {upload.size:,} bytes, {when}{beside}")


def _reading_steps(facts: WhyFacts, standing: Standing) -> Iterator[WhyStep]:
    record, finding = standing.record, upload_finding(facts)
    if record is not None:
        yield WhyStep(step="notification", ok=True, found="it came, or repair stood in for it")
        yield WhyStep(step="event", ok=True, found=f"model.uploaded, id {record.event or 'not noted'}")
        yield WhyStep(step="answer", ok=record.refusal is None, found=finding.message)
        return
    place = place_of(facts.lines["admit"], facts.identity.subject) if facts.lines and "admit" in facts.lines else None
    unread = place is not None and place.event.group.endswith("-announce")
    if finding.code == "not-announced" or facts.lines is None:
        ok = None if facts.lines is None else False
        yield WhyStep(step="notification", ok=ok, found=finding.message)
    elif unread:
        yield WhyStep(step="notification", ok=True, found="it lies in s3.raw")
        yield WhyStep(step="event", ok=False, found=finding.message)
    else:
        yield WhyStep(step="notification", ok=True, found="it came, or repair stood in for it")
        if finding.state == "failed":
            yield WhyStep(step="attempt", ok=False, found=finding.message)
        else:
            yield WhyStep(step="queue", ok=False, found=finding.message)


def _product_steps(facts: WhyFacts, standing: Standing, product: str) -> Iterator[WhyStep]:
    outcome, finding = standing.outcomes[product], product_finding(facts, product)
    if outcome.manifest is not None:
        made = outcome.manifest
        yield WhyStep(step="event", ok=True, found=f"id {made.event or 'not noted'}")
        yield WhyStep(step="answer", ok=made.refusal is None, found=finding.message)
        yield WhyStep(step="manifest", ok=True, found=f"{product} at {made.address}")
        return
    step: StepName = (
        "attempt" if finding.code in ("failed", "asked-again") else "queue" if in_line(facts, product) else "event"
    )
    yield WhyStep(step=step, ok=False, found=finding.message)
    yield WhyStep(step="manifest", ok=None, found=f"none of {product}, recipe {product_named(product).declared.recipe}")


def _notes(facts: WhyFacts) -> Iterator[str]:
    for key in facts.superseded:
        yield f"{key} has the same name and is older, so it is superseded: the newest counts."
    if facts.lines is None:
        yield f"The event log does not answer ({facts.log_error}): this is what the bucket says."
    for line in (facts.lines or {}).values():
        if line.unmoved is not None and line.unmoved.total_seconds() >= 1 and line.events:
            yield f"The first event for {line.function} is the same as {length(line.unmoved)} ago."
    for process in {one.name: one for one in (facts.processes or {}).values()}.values():  # hosts have many functions
        if not (process.is_running and process.is_ready):
            yield f"The process {process.name} {'is not ready' if process.is_running else 'is not running'}."
    for name, older in sorted(facts.older.items()):
        outcome = facts.standing.outcomes.get(name) if facts.standing else None
        if outcome is not None and outcome.manifest is None:
            yield f"An older {name} (recipe {older.recipe}) is there, and is shown until the present one is."
