"""Starts a stage as several processes.

    python -m kn.store.launcher --nproc_per_node 8 src/1_analyze_mlm.py …

is torchrun without its stack traces. If a process is killed, all processes are restarted, and only the units that they
were working on are lost. If one ends with an error message, the job ends.
"""

from kn.store.start import STOPPED

import logging
import os
import signal
import sys

from kn.store.workers import LAUNCHER, RESTARTS


def main() -> None:
    logging.disable(logging.CRITICAL)  # torchrun's own
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun does this, too, but prints a warning
    os.environ[LAUNCHER] = str(os.getpid())

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    class Ended(SignalException):
        """A process ended the job, and has printed why."""

    def end(*_: object) -> None:
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
        sys.exit(f"process {rank} ended with status {failure.exitcode} after {RESTARTS} restarts; see above")


if __name__ == "__main__":
    main()
