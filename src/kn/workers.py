"""The processes of a job that several work on: which one this is, and starting them.

    python -m kn.workers --nproc_per_node 8 src/1_analyze_mlm.py …

is torchrun without its stack traces. A process that is killed is started again with all the others, and nothing is
lost but what they were at; one that ends with an error line ends the job.
"""

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
        # What is wrong is mostly wrong for all, and the first ends them before they say it too.
        time.sleep(0 if FIRST else 2)
        print(line, file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes back as that
        os.kill(os.getppid(), signal.SIGUSR1)
        sys.exit(1)
    sys.exit(line)


def main() -> None:
    from kn.start import STOPPED  # first: from now on Ctrl-C is answered

    import logging

    logging.disable(logging.CRITICAL)  # torchrun's own
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, but without saying so
    os.environ[LAUNCHER] = str(os.getpid())

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    class Ended(SignalException):
        """A process ended the job, and has said why."""

    def end(*_) -> None:
        raise Ended("", signal.SIGTERM)

    signal.signal(signal.SIGUSR1, end)
    try:
        run.main(["--max-restarts", str(RESTARTS), *sys.argv[1:]])
    except Ended:
        sys.exit(1)
    except SignalException as stopped:
        sys.exit(STOPPED.get(stopped.sigval, 1))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.exit(f"process {rank} ended with {failure.exitcode}, {RESTARTS} times started again; see above")


if __name__ == "__main__":
    main()
