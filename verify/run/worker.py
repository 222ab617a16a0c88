"""What a worker process runs: it takes calls and answers them, and ends when its parent does, however that dies.

`verify.run.process` starts this file as a script, with the parent's process id and a memory limit in bytes (0 for none)
as arguments. It imports the standard library alone; the first thing it is sent is the module search path. A call is
a pickle of (function, arguments); an answer is JSON after its length, ["value", what the function returned] or
["raised", a sentence], so that nothing which a subject made is ever rebuilt in the parent.

What is measured may print, read, exit and crash as it likes: calls and answers have descriptors of their own, standard
input is empty, standard output and error are one pipe of which the parent keeps the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import BinaryIO


_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer calls until there are no more."""
    parent, memory = map(int, sys.argv[1:])
    # Ctrl-C is the parent's to answer; here KeyboardInterrupt is then only ever raised by what is measured.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    calls, answers = _own_streams()
    faulthandler.enable(all_threads=False)
    if memory:
        _limit_memory(memory)
    sys.path[:] = pickle.load(calls)
    while True:
        try:
            payload = pickle.load(calls)
        except EOFError:
            # Whatever threads and exit handlers are left must not keep the process.
            os._exit(0)
        answer = _answer(payload).encode()
        answers.write(len(answer).to_bytes(8, "little") + answer)
        answers.flush()


def _answer(payload: bytes) -> str:
    try:
        function, arguments = pickle.loads(payload)
        return json.dumps(["value", function(*arguments)])
    except BaseException as error:  # noqa: BLE001  (SystemExit and its like come from what is measured)
        return json.dumps(["raised", describe_error(error)])


def describe_error(error: BaseException) -> str:
    """An exception as one sentence: its type, what it says, and where it was raised."""
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001  (the message of a foreign exception may itself raise)
        said = "its message cannot be read"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {said}{place}"


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The streams of calls and answers, on descriptors that nobody else uses."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return calls, answers


def _end_with(parent: int) -> None:
    """End when the parent does: at once where the kernel can be asked to (Linux), within a second elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(memory: int) -> None:
    """Let allocations beyond `memory` bytes fail; Linux counts for it every private page that can be written."""
    import resource

    with contextlib.suppress(ValueError):  # a lower hard limit is there already
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main()
