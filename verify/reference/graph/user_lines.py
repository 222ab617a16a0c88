"""Which line of the user's source an operation, or an error, comes from."""

from __future__ import annotations

import linecache
import os
import sys
import traceback

import torch
from torch.fx.traceback import set_stack_trace


_HERE, _TORCH = os.path.dirname(__file__), os.path.dirname(torch.__file__)


def user_frame(error: BaseException) -> str:
    """The innermost line of the traceback that is neither torch's nor this package's."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith((_HERE, _TORCH, "<")):
            return f"{frame.filename}:{frame.lineno}: {(frame.line or '').strip()}"
    return ""


def note_user_line() -> str:
    """Tell torch.fx which line of the user's source the next operations come from, and return it."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code.co_filename.startswith((_HERE, _TORCH, "<")):
        frame = frame.f_back
    if frame is None:
        return ""
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno).strip()
    set_stack_trace([f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n    {line}\n'])
    return f"{code.co_filename}:{frame.f_lineno}: {line}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n")[0]
