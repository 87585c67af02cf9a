"""Redis's glob patterns as regular expressions over bytes. Called by `Predis.scan_iter`."""

from __future__ import annotations

import re


def compile_glob(pattern: bytes) -> re.Pattern[bytes]:
    r"""A pattern as Redis's `stringmatchlen` reads it: `*`, `?`, `[abc]`, `[^a-c]`, and `\` before a literal.

    >>> bool(compile_glob(b"user:[0-9]*").fullmatch(b"user:17"))
    True
    """
    out, i = [], 0
    while i < len(pattern):
        char = pattern[i : i + 1]
        i += 1
        if char == b"*":
            out.append(b".*")
        elif char == b"?":
            out.append(b".")
        elif char == b"[":
            item, i = _character_class(pattern, i)
            out.append(item)
        else:
            if char == b"\\" and i < len(pattern):
                char = pattern[i : i + 1]
                i += 1
            out.append(re.escape(char))
    return re.compile(b"".join(out), re.DOTALL)


def _character_class(pattern: bytes, i: int) -> tuple[bytes, int]:
    """The class that begins after the bracket at i - 1, and where the pattern goes on. It may lack its end."""
    negated = pattern[i : i + 1] == b"^"
    i += negated
    members: set[int] = set()
    while i < len(pattern) and pattern[i : i + 1] != b"]":
        if pattern[i : i + 1] == b"\\" and i + 1 < len(pattern):
            i += 1
            members.add(pattern[i])
        elif pattern[i + 1 : i + 2] == b"-" and i + 2 < len(pattern):
            low, high = sorted((pattern[i], pattern[i + 2]))
            members.update(range(low, high + 1))
            i += 2
        else:
            members.add(pattern[i])
        i += 1
    # Redis steps past the closing bracket, or stays on the last character where there is none.
    if negated:
        members = set(range(256)) - members
    if not members:
        return b"(?!)", i + 1
    return b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]", i + 1
