"""Seeds for every purpose from one: a private stream each, the same on every machine."""

import hashlib


def derived(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that is a pure function of (seed, purpose), e.g. derived(0, "dropout", step)."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
