"""A process to kill: it accepts jobs for ever, or serves them until all have ended, and says what it did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from router.server.jobs.job import Draft
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore


def say(*words: object) -> None:
    print(*words, flush=True)


def accept_for_ever(path: Path) -> None:
    """Prints the id of each job after its acceptance, and begins every other one."""
    store = JobStore(path, JobLimits(waiting=1_000_000))
    index = 0
    while True:
        index += 1
        drafted = Draft("alice", {"prompt": f"{index}", "seed": index}, {"image": os.urandom(9_000)})
        job, _ = store.accept(drafted)
        say("accepted", job.id, index)
        if index % 2:
            store.start(job.id)
        if index % 6 == 1:
            store.finish(job.id, {"seed": index}, {0: f"picture {index}".encode()})
            say("done", job.id, index)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
