"""What is told of an outcome: a few lines that a chat shows as they are. Pure."""

from __future__ import annotations

from typing import Final

from layerscope.functions.analysis.wording.numerals import count, percent
from layerscope.functions.notify.outcomes import Analysed, Failed, NotAnalysed, Outcome
from layerscope.schemas.manifests import Headline
from layerscope.stores.outcomes.places import ADMIT

MOST_FINDINGS: Final = 5
MOST_CHARACTERS: Final = 400

_HARMLESS: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "[": "(", "]": ")", "`": "'", "\n": " ", "\r": " "})
"""What begins a mention, a link or a block in a chat: keys, names of classes and reasons may be strangers' words."""


def text_of(outcome: Outcome, pages: str) -> str:
    """Return the text about an outcome; `pages`: URL of `query` as people reach it, or nothing.

    It ends with a link to the model's page, where it has one.
    """
    lines = _lines(outcome)
    if outcome.identity is not None and pages.startswith(("http://", "https://")):
        lines.append(f"{pages.rstrip('/')}/models/{outcome.identity.subject}")
    return "\n".join(lines)


def _lines(outcome: Outcome) -> list[str]:
    name = outcome.identity.subject if outcome.identity else ""
    match outcome.said:
        case Analysed(evaluation, findings):
            found = [harmless(one.texts[0].title) for one in findings.findings]
            shown = [f"• {title}" for title in found[:MOST_FINDINGS]]
            more = len(found) - len(shown)
            rest = [f"• and {count(more, 'more', 'more')}"] if more else []
            told = f"{harmless(findings.summary[0].title)}{':' if shown else ''}"
            return [f"{name}: {_accuracy(evaluation)}. {told}", *shown, *rest]
        case NotAnalysed(key, refusal):
            what = f"{name} is not analysed" if name else f"{harmless(key)} was refused"
            hint = [harmless(refusal.hint)] if refusal.hint else []
            return [f"{what}: {harmless(refusal.message)}", *hint]
        case Failed(function, reason):
            what = "it could not be read" if function == ADMIT else f"{function} failed"
            return [f"{name}: {what}: {harmless(reason)}"]


def _accuracy(evaluation: Headline) -> str:
    value, low, high = (evaluation.get(one) for one in ("accuracy", "accuracy_low", "accuracy_high"))
    if not (isinstance(value, float) and isinstance(low, float) and isinstance(high, float)):
        return "its accuracy is not known"
    return f"accuracy {percent(value, 'en')} (95 % interval {percent(low, 'en')} to {percent(high, 'en')})"


def harmless(words: str) -> str:
    """Return words in which a chat finds neither mention nor link nor markup, cut where they are long."""
    plain = words.translate(_HARMLESS).replace("://", ":∕∕")
    return plain if len(plain) <= MOST_CHARACTERS else f"{plain[: MOST_CHARACTERS - 1]}…"
