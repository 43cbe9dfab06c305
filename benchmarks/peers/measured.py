"""Runs a command and prints, after what it printed, its seconds, peak memory in MB and exit status; for speed.py.

    python benchmarks/peers/measured.py COMMAND …

A process of its own that is small: a peak includes what the parent held when it started the command.
"""

import json
import resource
import subprocess
import sys
import time

if __name__ == "__main__":
    start = time.monotonic()
    status = subprocess.call(sys.argv[1:])
    seconds, most = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"seconds": round(seconds, 3), "mb": round(most / 1024), "status": status}))
