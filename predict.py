"""Predict with the models of one or more runs. `python predict.py --help` says how."""

import sys
from pathlib import Path

# It runs from a plain copy, without installation.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from pseudokit.cli import predict_main

if __name__ == "__main__":
    predict_main()
