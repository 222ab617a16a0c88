"""The one error that the report floor raises for what a user gave it."""

from __future__ import annotations


class ReportError(Exception):
    """What was given cannot be shown; the message says what was given, what is allowed and what to do."""
