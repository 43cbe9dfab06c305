"""Self-training: pseudo-labels for unlabeled images, or repaired labels. `python pseudo.py --help` says how."""

import sys
from pathlib import Path

# It runs from a plain copy, without installation.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from pseudokit.cli import pseudo_main

if __name__ == "__main__":
    pseudo_main()
