"""Waits until an address answers: python wait_for.py http://mlflow:5000/health [--seconds=600]"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request


def main(words: list[str]) -> int:
    """Exit code 0 as soon as it answers, 1 when the time is over, 2 where no address is given."""
    addresses = [word for word in words if not word.startswith("--")]
    seconds = [word.removeprefix("--seconds=") for word in words if word.startswith("--seconds=")]
    if len(addresses) != 1 or len(words) != 1 + len(seconds) or not all(word.isdigit() for word in seconds):
        print(__doc__, file=sys.stderr)
        return 2
    deadline = time.monotonic() + int(seconds[0] if seconds else "600")
    while True:
        try:
            with urllib.request.urlopen(addresses[0], timeout=10):  # noqa: S310 - the manifest gives the address
                return 0
        except (urllib.error.URLError, OSError) as error:
            reason = error
        if time.monotonic() > deadline:
            print(f"{addresses[0]} does not answer: {reason}", file=sys.stderr)
            return 1
        print(f"waiting for {addresses[0]}: {reason}", flush=True)
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
