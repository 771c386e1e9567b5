"""What a script imports first and calls last. A signal, or a mistake of the user's, then ends it with one line.

First, because importing PyTorch takes seconds, in which Ctrl-C would print a traceback of its insides.
"""

import os
import signal
import sys
import threading

STOPPED = {
    signal.SIGINT: "interrupted; the same command goes on from here",
    signal.SIGTERM: "stopped; the same command goes on from here",
}


def _handle(handler) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in STOPPED:
            if signal.getsignal(number) != signal.SIG_IGN:  # as of a job in the background
                signal.signal(number, handler)


def _while_importing(number: int, _) -> None:
    # An exception would come out of an import, and some modules make another one of it. Nothing is lost yet.
    if not globals().get("LAUNCHED"):  # who started several processes says it
        os.write(2, f"{STOPPED[number]}\n".encode())
    os._exit(1)


# A process that a script has beside it ends with the script, whatever the signal, and says nothing.
_handle(signal.SIG_DFL if "--multiprocessing-fork" in sys.orig_argv else _while_importing)

from collections.abc import Callable  # noqa: E402

from kn.store.files import InputError  # noqa: E402
from kn.store.workers import FIRST, LAUNCHED, NOTES, RESTARTED, RESTARTS, end_all, end_with_parent  # noqa: E402


def guard(main: Callable[[], None]) -> None:
    """Run a script: what the user can mend ends with one line, an interruption says that nothing is lost."""
    stopped: list[str] = []

    def stop(number: int, _) -> None:
        _handle(signal.SIG_IGN)  # once is enough
        stopped.append(STOPPED[number])
        raise KeyboardInterrupt

    _handle(stop)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr, where the terminal's encoding lacks a letter
    if LAUNCHED:
        end_with_parent()
        if RESTARTED and FIRST:
            print(f"a process was killed; all were started again ({RESTARTED} of {RESTARTS} times)", file=sys.stderr)
    NOTES.clear()
    try:
        try:
            main()
            for line in NOTES:
                print(line, file=sys.stderr)
        finally:
            sys.stdout.flush()
    except BaseException as error:
        if stopped:  # whatever has become of the KeyboardInterrupt on its way
            sys.exit(1 if LAUNCHED else stopped[0])
        if isinstance(error, InputError):
            end_all(f"error: {' '.join(str(error).split())}")
        if isinstance(error, OSError) and error.filename is None:  # files are written by kn.store.files
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries once more when it ends
            if isinstance(error, BrokenPipeError):  # as of `… | head`
                sys.exit(1)
            end_all(f"error: the output can't be written ({error.strerror})")
        raise
