"""Runs a command and prints, after what it printed, its seconds, peak memory in MB and exit status; for speed.py.

    python benchmarks/peers/measured.py COMMAND …

A process of its own that is small: a peak includes what the parent held when it started the command. The kit begins a
new peak with every stage of a run, so on Linux the peak is also looked at ten times a second.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

peaks = []


def watch(pid: int) -> None:
    """Add the peaks of a process, in KiB, until it ends."""
    try:
        while True:
            status = Path(f"/proc/{pid}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
            time.sleep(0.1)
    except (OSError, IndexError):  # it has ended, or this is not Linux
        pass


if __name__ == "__main__":
    start = time.monotonic()
    process = subprocess.Popen(sys.argv[1:])
    Thread(target=watch, args=[process.pid], daemon=True).start()
    status = process.wait()
    seconds, most = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    most = max(most, *peaks, 0)
    print(json.dumps({"seconds": round(seconds, 3), "mb": round(most / 1024), "status": status}))
