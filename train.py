"""Train on the labels there are. `python train.py --help` says how."""

import sys
from pathlib import Path

# It runs from a plain copy, without installation.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from pseudokit.cli import train_main

if __name__ == "__main__":
    train_main()
