"""What is written about the machine."""

import json
import os
import sys

import numpy as np

from pseudokit.system.environment import environment


def test_the_environment_holds_versions_and_no_environment_variable(monkeypatch):
    monkeypatch.setenv("SOME_SECRET_TOKEN", "hunter2-hunter2")
    info = environment()
    text = json.dumps(info)
    assert "hunter2" not in text
    assert "SOME_SECRET" not in text
    assert os.environ["PATH"] not in text
    assert info["packages"]["numpy"] == np.__version__
    assert info["python"] == sys.version.split()[0]
