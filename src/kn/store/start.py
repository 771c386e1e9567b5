"""What a script imports first and calls last, so that a signal or a mistake of the user's ends it with one line.

It comes first because importing PyTorch takes seconds, in which Ctrl-C would print a traceback.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

STOPPED: dict[int, str] = {
    signal.SIGINT: "interrupted; run the same command again to resume",
    signal.SIGTERM: "stopped; run the same command again to resume",
}


def _handle(handler: Callable | int) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in STOPPED:
            if signal.getsignal(number) != signal.SIG_IGN:  # a job in the background ignores Ctrl-C
                signal.signal(number, handler)


def _while_importing(number: int, _: object) -> None:
    # An exception would be raised inside an import, and some modules turn it into another. Nothing is lost yet.
    if not globals().get("LAUNCHED"):  # else the launcher prints it
        os.write(2, f"{STOPPED[number]}\n".encode())
    os._exit(1)


# A helper process of a script ends with the script, whatever the signal, and prints nothing.
_handle(signal.SIG_DFL if "--multiprocessing-fork" in sys.orig_argv else _while_importing)

from kn.store.files import InputError  # noqa: E402
from kn.store.workers import FIRST, LAUNCHED, NOTES, RESTARTED, RESTARTS, end_all, end_with_parent  # noqa: E402


def guard(main: Callable[[], None]) -> None:
    """Run a script. A mistake of the user's ends with one line, and so does an interruption."""
    stopped: list[str] = []

    def stop(number: int, _: object) -> None:
        _handle(signal.SIG_IGN)  # once is enough
        stopped.append(STOPPED[number])
        raise KeyboardInterrupt

    _handle(stop)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr; the terminal's encoding may lack a character
    if LAUNCHED:
        end_with_parent()
        if RESTARTED and FIRST:
            print(f"a process was killed; restarted all (restart {RESTARTED} of {RESTARTS})", file=sys.stderr)
    NOTES.clear()
    try:
        try:
            main()
            for line in NOTES:
                print(line, file=sys.stderr)
        finally:
            sys.stdout.flush()
    except BaseException as error:
        if stopped:  # whatever the KeyboardInterrupt has been turned into
            sys.exit(1 if LAUNCHED else stopped[0])
        if isinstance(error, InputError):
            end_all(f"error: {' '.join(str(error).split())}")
        if isinstance(error, OSError) and error.filename is None:  # files are written by kn.store.files
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries again when it ends
            if isinstance(error, BrokenPipeError):  # such as `… | head`
                sys.exit(1)
            end_all(f"error: the output can't be written ({error.strerror})")
        raise
