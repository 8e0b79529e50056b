"""What a plausible teacher answers to `clsgen_dist.explain.prompts`, as a function of the request alone.

It agrees with most labels, disagrees with some, gives a reason that a reader understands, and now and then one that
the checks refuse.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

#: Of so many rows, one is judged wrongly when asked blind; of so many reasons, one tells that it was told.
_ONE_IN_BLIND, _ONE_IN_TOLD = 10, 12
_SIGNS = {"yes": "runs hot", "no": "stays cool"}


def answer(messages: list[dict[str, Any]], seed: int) -> str:
    """Answers one request for labels no and yes."""
    content = str(messages[-1]["content"])
    draw = int.from_bytes(hashlib.sha256(f"{seed} {content}".encode()).digest()[:8], "little")
    if "Which label does the reason argue for?" in content:
        return "yes" if _SIGNS["yes"] in content else "no" if _SIGNS["no"] in content else "unclear"
    told = re.search(r"The label of this text is: (\w+)", content)
    if told is None:
        right = "yes" if "fever" in content else "no"
        return ("no" if right == "yes" else "yes") if draw % _ONE_IN_BLIND == 0 else right
    if draw % _ONE_IN_TOLD == 0:
        return "I was told that the label is right."
    words = " ".join(f"{'abcdefghijklmnop'[draw >> 4 * n & 15]}o{draw >> 5 * n & 31}" for n in range(1, 7))
    return f"Signs {words} show that this patient {_SIGNS[told[1]]}."
