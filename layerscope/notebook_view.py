"""How a stored model looks in a notebook: HTML that needs nothing else, neither files nor scripts nor the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from layerscope import terminal
from layerscope.schemas.queries import ModelAnswer


def card(answer: ModelAnswer, findings: Sequence[str], picture: bytes | None) -> str:
    """Return a model version as HTML.

    Args:
        answer: what its upload came to, and its products.
        findings: what is wrong with it, one sentence or more each.
        picture: a PNG to show; None: there is none.
    """
    name = f"{answer.dataset}/{answer.model}/{answer.version}"
    parts = [f"<strong>{escape(name)}</strong> {escape(terminal.model_state(answer).plain)}"]
    said = answer.refusal.message if answer.refusal else answer.reason
    if said:
        parts.append(f"<p>{escape(said)}</p>")
    if findings:
        parts.append("<ol>" + "".join(f"<li>{escape(one)}</li>" for one in findings) + "</ol>")
    if answer.products:
        rows = "".join(
            f"<tr><td>{escape(product)}</td><td>{escape(terminal.product_state(line))}</td>"
            f"<td>{escape(line.refusal.message if line.refusal else line.reason or terminal.headline(line.headline))}</td></tr>"
            for product, line in answer.products.items()
        )
        head = "<tr><th>product</th><th>state</th><th>what it says</th></tr>"
        parts.append(f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>")
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        parts.append(f'<img alt="confusion matrix of {escape(name)}" src="data:image/png;base64,{encoded}">')
    return f"<div>{''.join(parts)}</div>"
