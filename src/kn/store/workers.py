"""Which of a job's processes this one is, and how it ends with the others. `launcher` starts them."""

import os
import signal
import sys
import threading
import time

LAUNCHER = "KN_LAUNCHER"  # the process that started this one among several, if that is what started it

LAUNCHED = os.environ.get(LAUNCHER) == str(os.getppid())
_set = os.environ if LAUNCHED else {}  # pods, job scripts and other launchers set the same names for their own ends

RANK = int(_set.get("RANK", 0))
LOCAL_RANK = int(_set.get("LOCAL_RANK", 0))  # among those on this machine
LOCAL_WORKERS = int(_set.get("LOCAL_WORLD_SIZE", 1))
WORKERS = int(_set.get("WORLD_SIZE", 1))
RESTARTED = int(_set.get("TORCHELASTIC_RESTART_COUNT", 0))  # how often
FIRST = RANK == 0  # it alone talks to the user
RESTARTS = 3
NOTES: list[str] = []  # what the user has to know of a run that comes through


def note(line: str) -> None:
    """Have a line said when the script ends, unless it ends with an error: then that one line is all."""
    if FIRST:
        NOTES.append(line)


def end_with_parent() -> None:
    """End this process when the one that started it does, however that comes about."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_all(line: str) -> None:
    """End this process with a line for the user, and with it the others of the job, which would be started again."""
    if LAUNCHED:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # whoever waits below is ended by it, without a traceback
        # What is wrong is mostly wrong for all, and the first ends them before they say it too.
        time.sleep(0 if FIRST else 2)
        print(line, file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes back as that
        os.kill(os.getppid(), signal.SIGUSR1)
        sys.exit(1)
    sys.exit(line)
