"""The digest that results carry of all that they say: what was changed after a run wrote it is seen.

It is no signature: whoever changes a file can make a new digest, which the gate's other rules are there for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain JSON values in hexadecimal digits, whatever the order of their keys.

    Args:
        values: strict JSON, no NaN.
    """
    digest = hashlib.sha256()
    for key in sorted(values):
        # Piece by piece, since the rows of a run are too many to write twice in one string.
        value = values[key]
        pieces: list[Any] = value if isinstance(value, list) else [value]
        digest.update(f"{json.dumps(key)}:{len(pieces)}:".encode())
        for piece in pieces:
            digest.update(json.dumps(piece, sort_keys=True, allow_nan=False, separators=(",", ":")).encode())
            digest.update(b"\n")
    return digest.hexdigest()
