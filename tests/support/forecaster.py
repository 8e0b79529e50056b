"""What an overconfident model says when it is asked for a distribution over no and yes, in many forms.

A function of the request alone. Rows of `forecast_rows` say "evidence Z", and Z is the true log-odds of yes.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from typing import Any

#: Of so many answers, one is a refusal, one is prose, one has a label twice.
ONE_IN_REFUSED, ONE_IN_PROSE, ONE_IN_DOUBLED = 17, 19, 23


def forecast_rows(num_rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with drawn labels, the log-odds of yes in their text."""
    draw = random.Random(seed)
    rows = []
    for number in range(num_rows):
        evidence = draw.gauss(0, 1.3)
        label = int(draw.random() < 1 / (1 + math.exp(-evidence)))
        rows.append({"id": f"row-{number}", "text": f"case {number}: evidence {evidence:.3f}", "label": label})
    return rows


def forecast(messages: list[dict[str, Any]], seed: int) -> str:
    """Answers one request for labels no and yes."""
    content = str(messages[-1]["content"])
    evidence = re.search(r"evidence (-?\d+\.\d+)", content)
    assert evidence is not None, "only rows of forecast_rows are known"
    draw = int.from_bytes(hashlib.sha256(f"{seed} {content}".encode()).digest()[:8], "little")
    yes = round(100 / (1 + math.exp(-2 * float(evidence[1]) - 0.2)))
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
