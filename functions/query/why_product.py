"""Why a product is complete, refused, failed or not there yet, through its inputs if need be: pure functions over facts."""

from __future__ import annotations

from layerscope.functions.query.why_facts import WhyFacts
from layerscope.functions.query.why_queue import Verdict, in_line
from layerscope.functions.query.why_upload import failed, next_round, not_taken, repaired_by_itself, upload_finding
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products import product_named
from layerscope.schemas.products.product import Product
from layerscope.schemas.why import WhyCode, WhyFinding
from layerscope.stores.catalogue import Outcome


def product_finding(facts: WhyFacts, name: str) -> WhyFinding:
    """Say where a product stands.

    Raises:
        KeyError: there is no product of this name.
    """
    product, standing = product_named(name), facts.standing
    upload = upload_finding(facts)
    if standing is None or standing.facts is None:
        message = f"{name} is made once the upload is admitted."
        if upload.state == "refused":
            message = f"{name} cannot be made, as the upload was refused."
        return WhyFinding(
            of=name, state=upload.state, code="upload-not-admitted", message=message, help=upload.help, because=upload
        )
    outcome = standing.outcomes[name]
    if outcome.manifest is not None:
        return _settled(name, outcome.manifest)
    through = _through_input(facts, product, outcome)
    if through is not None:
        return through
    verdict = in_line(facts, name)
    if outcome.failure is not None and (verdict is None or facts.lines is None):
        return failed(name, outcome.failure)
    verdict = verdict or not_taken(facts, name) or _not_asked(facts, name)
    return WhyFinding(of=name, state="computing", code=verdict.code, message=verdict.message, help=verdict.help)


def index_finding(facts: WhyFacts) -> WhyFinding | None:
    """Say whether the index is up to date; None where there is no upload to be in it."""
    if facts.standing is None:
        return None
    if facts.indexed is None:
        message = f"The index does not answer ({facts.index_error}): search and the list of models lack news."
        return WhyFinding(
            of="index",
            state="computing",
            code="index-unreachable",
            message=message,
            help="bring Milvus back: layerscope doctor",
        )
    if facts.indexed:
        message = "The index has what the bucket says."
        return WhyFinding(of="index", state="complete", code="complete", message=message)
    verdict = in_line(facts, "index")
    if verdict is None:
        verdict = Verdict(
            "index-behind",
            f"The index has not what the bucket says now, and no request for that waits; {next_round(facts)}.",
            repaired_by_itself(facts),
        )
    return WhyFinding(of="index", state="computing", code=verdict.code, message=verdict.message, help=verdict.help)


def _settled(name: str, manifest: Manifest) -> WhyFinding:
    if manifest.refusal is None:
        message = f"{name} is complete: recipe {manifest.recipe}, computed in {manifest.seconds:g} s."
        return WhyFinding(of=name, state="complete", code="complete", message=message)
    refusal = manifest.refusal
    message = f"{name} refused the model ({refusal.code}): {refusal.message}"
    code: WhyCode = "no-dataset" if refusal.code == "no-dataset" else "refused"
    return WhyFinding(of=name, state="refused", code=code, message=message, help=refusal.hint)


def _through_input(facts: WhyFacts, product: type[Product], outcome: Outcome) -> WhyFinding | None:
    """Say through which input a product was refused or failed, or for which it waits; None: all of them are there."""
    name = product.declared.name
    for one in product.declared.stands_on:
        because = product_finding(facts, one.declared.name)
        if because.state == "complete" or (because.state == "refused" and one in product.declared.optional):
            continue
        source = because.of
        if because.state == "refused":
            message = f"{name} is made from {source}, which this model cannot have."
            return WhyFinding(
                of=name, state="refused", code="refused-input", message=message, help=because.help, because=because
            )
        if because.state == "failed":
            message = f"{name} is made from {source}, which failed."
            return WhyFinding(
                of=name, state="failed", code="failed-input", message=message, help=because.help, because=because
            )
        message = f"{name} is made from {source}, which is not there yet."
        return WhyFinding(
            of=name, state="computing", code="waits-for-input", message=message, help=because.help, because=because
        )
    return None


def _not_asked(facts: WhyFacts, name: str) -> Verdict:
    older = facts.older.get(name)
    recipe = product_named(name).declared.recipe
    assert facts.standing is not None and facts.standing.facts is not None
    if older is not None:
        cause = "by an older recipe" if older.recipe != recipe else "from other inputs"
        shown = f"recipe {older.recipe}, now {recipe}" if older.recipe != recipe else "its dataset or a sidecar changed"
        found = f"There is one that was made {cause} ({shown}), and is shown meanwhile; nobody has asked for the new one yet"
    elif facts.standing.facts.dataset is None and product_named(name).declared.parts:
        found = f"There is no dataset {facts.identity.dataset}, so {name} will be refused; nobody has asked for it yet"
    else:
        found = f"Nothing asks {name} for it: its event was lost, or has just been answered"
    return Verdict("not-asked", f"{found}; {next_round(facts)}.", repaired_by_itself(facts))
