"""Predictions that several processes share are those of one."""

import numpy as np
import pytest
import torch

from src import stock as stock_module
from src.config import Config, Model
from src.learn import infer
from src.learn.models import Trained, create_model
from src.processes import ALONE
from src.stock import Stock


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_shares_are_whole_batches_and_together_all_rows_in_order(monkeypatch, processes, views):
    monkeypatch.setitem(infer.PIXELS, "cpu", 16 * 16 * 8)  # batches of eight
    torch.manual_seed(0)
    network, form = create_model(Model(), ("a", "b", "c"), 16, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    stock = Stock(Config(train={"device": "cpu"}), pixels, np.empty(0, np.int64), form.classes)
    rows, model = np.random.default_rng(1).permutation(60)[:43], Trained(network, form, "")
    alone, asked = stock.predict(model, rows, views), []

    def each(work, jobs):
        asked.extend(jobs)
        return (work(job, ALONE) for job in jobs)

    monkeypatch.setattr(stock_module, "size", lambda: processes)
    monkeypatch.setattr(stock_module, "each", each)
    np.testing.assert_array_equal(stock.predict(model, rows, views), alone)
    assert len(asked) == processes
    assert all(job.first % 8 == 0 for job in asked)
    assert stock.predict(model, rows[:0], views).shape == (0, 3)
