"""Why an upload is admitted, refused, failed or not yet read: pure functions over facts."""

from __future__ import annotations

from layerscope.functions.query.why_facts import PERIOD, WhyFacts, ago
from layerscope.functions.query.why_queue import Verdict, in_line
from layerscope.schemas.manifests import Failure, UploadRecord
from layerscope.schemas.why import WhyFinding

OF: str = "upload"


def upload_finding(facts: WhyFacts) -> WhyFinding:
    """Say where the upload stands; `complete` where it was admitted."""
    standing = facts.standing
    if standing is None:
        return _absent(facts)
    record, failure = standing.record, standing.failure
    if record is not None and record.refusal is not None:
        refusal = record.refusal
        message = f"admit refused the upload ({refusal.code}): {refusal.message}"
        return WhyFinding(of=OF, state="refused", code="refused", message=message, help=refusal.hint)
    if record is not None:
        message = f"The upload was admitted: {record.content_size:,} bytes in the safe form."
        return WhyFinding(of=OF, state="complete", code="complete", message=message)
    verdict = in_line(facts, "admit")
    if failure is not None and (verdict is None or facts.lines is None):
        return failed(OF, failure)
    verdict = verdict or not_taken(facts, "admit") or _not_announced(facts)
    return WhyFinding(of=OF, state="computing", code=verdict.code, message=verdict.message, help=verdict.help)


def failed(of: str, failure: Failure) -> WhyFinding:
    """Say that something failed, why, how often it was tried, and when or how it is asked for again."""
    times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    message = f"{failure.function} failed {times}: {failure.reason.rstrip('.')}. {failure.outlook}"
    if failure.ask_again_at is not None:
        help_ = "mend what it names, if it is still so, and wait; layerscope replay run --failed asks at once"
        return WhyFinding(of=of, state="failed", code="asked-again", message=message, help=help_)
    letter = failure.events[-1] if failure.events else "unknown"
    help_ = (
        f"its dead letter is the event {letter} in layerscope.dlq; once the cause is gone, layerscope replay run --failed "
        "asks again"
    )
    return WhyFinding(of=of, state="failed", code="failed", message=message, help=help_)


def not_taken(facts: WhyFacts, function: str) -> Verdict | None:
    """Say that the function was asked and did not take it, for what may be circumstances; None: it was not so."""
    last = facts.given_up.get(function)
    if last is None:
        return None
    answer = "gave no answer" if last.status is None else f"answered {last.status}: {last.reason.rstrip('.')}"
    count = "" if last.letters == 1 else f", and {last.letters} times in all"
    return Verdict(
        "asked-again",
        f"{function} was asked and {answer} ({ago(facts.now, last.at)}{count}); {next_round(facts)}.",
        f"mend what it names; {repaired_by_itself(facts)}",
    )


def next_round(facts: WhyFacts) -> str:
    """Say when repair looks next."""
    repair = facts.repair
    if repair is None or (repair.last_good is None and not repair.failed_rounds):  # none, or the first one, has ended
        return "repair looks every 60 s, and asks for it in its next round or the one after"
    if repair.failed_rounds or repair.last_good is None:
        since = f"since {repair.last_good:%H:%M:%S} UTC" if repair.last_good else "so far"
        return f"repair would ask for it, but no round has ended well {since}: {repair.reason}"
    due = repair.last_good + PERIOD
    if facts.now - repair.last_good > 5 * PERIOD:
        return (
            f"repair would ask for it, but its last round was {ago(facts.now, repair.last_good)}: replay does not run"
        )
    return f"repair looks next at about {due:%H:%M:%S} UTC, and asks for it then or 60 s later"


def repaired_by_itself(facts: WhyFacts) -> str:
    """Return what helps where repair has to ask: nothing while it works, else to bring it back."""
    repair = facts.repair
    last_good = None if repair is None or repair.failed_rounds else repair.last_good
    if last_good is not None and facts.now - last_good <= 5 * PERIOD:
        return "wait for it; layerscope replay run asks at once"
    return "layerscope status tells whether replay runs; layerscope replay run asks at once"


def _not_announced(facts: WhyFacts) -> Verdict:
    assert facts.standing is not None
    upload = facts.standing.upload
    seen = f"It was uploaded {ago(facts.now, upload.modified)}"
    if facts.older_reading is not None:
        found = (
            f"{seen} and was read by an older admit (recipe {facts.older_reading}, now {UploadRecord.RECIPE}); it has to "
            "be read again, and nobody has asked for that yet"
        )
    else:
        found = f"{seen}, and no notification or event of it waits anywhere: it was lost, or has yet to come"
    return Verdict("not-announced", f"{found}; {next_round(facts)}.", repaired_by_itself(facts))


def _absent(facts: WhyFacts) -> WhyFinding:
    subject = facts.identity.subject
    refused = next((one for one in facts.near if one.refused), None)
    if refused is not None:
        message = f"There is no {subject}, but {refused.key!r}, whose key breaks the naming rule: {refused.refused}"
        help_ = f"aws s3 mv it to s3://models/{subject}.safetensors, or whichever extension it is"
        return WhyFinding(of=OF, state=None, code="bad-key", message=message, help=help_)
    named = ", ".join(dict.fromkeys(one.subject for one in facts.near if one.subject))
    near = f"; there is {named}" if named else ""
    return WhyFinding(
        of=OF,
        state=None,
        code="no-such-upload",
        message=f"No object of the bucket models has the name {subject}{near}.",
        help="layerscope show lists the models; layerscope upload FILE " + subject + " makes this one",
    )
