"""Which of a job's processes this is, and how they end together. `launcher` starts them. Never imports torch."""

import os
import signal
import sys
import threading
import time

LAUNCHER = "KN_LAUNCHER"  # environment variable with the number of the launcher's process

LAUNCHED = os.environ.get(LAUNCHER) == str(os.getppid())
_set = os.environ if LAUNCHED else {}  # pods, job scripts and other launchers use the same variables

RANK = int(_set.get("RANK", 0))
LOCAL_RANK = int(_set.get("LOCAL_RANK", 0))  # among those on this machine
LOCAL_WORKERS = int(_set.get("LOCAL_WORLD_SIZE", 1))
WORKERS = int(_set.get("WORLD_SIZE", 1))
RESTARTED = int(_set.get("TORCHELASTIC_RESTART_COUNT", 0))  # how many times so far
FIRST = RANK == 0  # only this process prints
RESTARTS = 3
NOTES: list[str] = []  # printed at the end of a run that succeeds


def note(line: str) -> None:
    """Print a line when the script ends, unless it ends with an error: then the error is the only line."""
    if FIRST:
        NOTES.append(line)


def end_with_parent() -> None:
    """End this process when its parent ends, for whatever reason."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_all(line: str) -> None:
    """Print an error and end all processes of the job. If only this one ended, all would be restarted."""
    if LAUNCHED:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # the launcher's signal ends this process without a traceback
        # Most errors occur in every process. The first one ends the others before they print it, too.
        time.sleep(0 if FIRST else 2)
        print(line, file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher sends it to every process
        os.kill(os.getppid(), signal.SIGUSR1)
        sys.exit(1)
    sys.exit(line)
