"""The table of `docs/operate.md` that says what each function needs."""

from __future__ import annotations

import re
from typing import Final

from layerscope.deployment.functions import Function, functions
from layerscope.deployment.services import hosts_and_subscriptions

BEGIN: Final = "<!-- functions: `make manifests` writes what follows -->\n"
END: Final = "<!-- end -->\n"
HEAD: Final = (
    "| function | image | processors, memory | at most | limit | Trigger's timeout | replicas | talks to |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
WORDS: Final = {
    "s3": "store",
    "kafka": "Kafka",
    "milvus": "Milvus",
    "redis": "Redis",
    "language-model": "language model",
    "inference": "inference",
    "stage": "other stages",
    "webhook": "webhook",
}


def with_table(text: str) -> str:
    """Return a document with the table as it should be; one without the marks stays as it is."""
    table = BEGIN + HEAD + "".join(map(_row, functions())) + END
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, text, flags=re.DOTALL)


def _row(function: Function) -> str:
    hosts, subscriptions = hosts_and_subscriptions(function)
    size, live = function.size, hosts[0]
    cells = (
        f"`{function.name}`",
        function.image.removeprefix("layerscope-") + (", GPU" if function.on_gpu else ""),
        f"{size.cpu}, {_memory(size.memory_mb)}",
        _memory(size.most_memory_mb),
        f"{function.limit_seconds:g} s" if function.limit_seconds else "",
        f"{subscriptions[0].timeout_seconds} s" if subscriptions else "",
        f"{live.least}–{live.most}" + (", replay 0–1" if len(hosts) > 1 else ""),
        ", ".join(WORDS[one] for one in function.uses),
    )
    return f"| {' | '.join(cells)} |\n"


def _memory(megabytes: int) -> str:
    return f"{megabytes // 1024} GiB" if megabytes % 1024 == 0 else f"{megabytes} MiB"
