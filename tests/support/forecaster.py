"""What an overconfident model says when it is asked for a distribution over no and yes, in many forms.

A function of the request alone: how many of the words of a text are "fever" or "fine" decides, so tests know better.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

#: Of so many answers, one is a refusal, one is prose, one has a label twice.
ONE_IN_REFUSED, ONE_IN_PROSE, ONE_IN_DOUBLED = 17, 19, 23


def forecast(messages: list[dict[str, Any]], seed: int) -> str:
    """Answers one request for labels no and yes."""
    content = str(messages[-1]["content"])
    evidence = re.search(r"evidence (-?[\d.]+)", content)
    draw = int.from_bytes(hashlib.sha256(f"{seed} {content}".encode()).digest()[:8], "little")
    logit = 2 * float(evidence[1]) + 0.3 if evidence else 1.5 if "fever" in content else -1.5
    yes = round(100 / (1 + math.exp(-logit)))
    if draw % ONE_IN_REFUSED == 0:
        return "I'm sorry, but I can't help with that."
    if draw % ONE_IN_PROSE == 0:
        return "It is rather likely that this is a fever."
    if draw % ONE_IN_DOUBLED == 0:
        return f"no: {100 - yes}%\nyes: {yes}%\nyes: {yes}%"
    forms = (
        json.dumps({"no": 100 - yes, "yes": yes}),
        f"```json\n{json.dumps({'no': 1 - yes / 100, 'yes': yes / 100})}\n```\nThat is my view.",
        f"{{'yes': {yes / 100}, 'no': {1 - yes / 100:.2f}}}",
        f"1. yes\n2. I am {max(yes, 100 - yes)}% sure.\n- **yes**: {yes}%\n- **no**: {100 - yes}%",
    )
    return forms[(draw >> 8) % len(forms)]
