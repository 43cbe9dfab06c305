"""Examples are the nearest rows whose label the run agrees with."""

import numpy as np
import pandas as pd

from pseudokit.data.csv_text import read_csv
from pseudokit.report.nearest_examples import (
    EXAMPLES_PER_CLASS,
    MAX_CANDIDATES,
    find_candidates,
    nearest_examples,
)
from pseudokit.report.review_items import read_review_items


def test_examples_agree_and_are_the_nearest(denoise):
    items, info = read_review_items(denoise, limit=40)
    near, paths = nearest_examples(denoise, info, items)
    table = read_csv(denoise / "round_2" / "decisions.csv")
    log_probs = np.load(denoise / "round_2" / "log_probs.npy")
    path_of = read_csv(denoise / "samples.csv").drop_duplicates("id").set_index("id")["path"]
    assert paths == {
        row: path_of[table["id"][row]] for pair in near for side in pair for row in side
    }
    is_agreed = (table["decision"] == "keep") & (table["given_label"] == table["predicted"])
    for item, pair in zip(items.to_dict("records"), near, strict=True):
        own_row = table.index[table["id"] == item["id"]]
        for name, rows in zip((item["given_label"], item["predicted"]), pair, strict=True):
            candidates = table.index[is_agreed & (table["given_label"] == name)].difference(own_row)
            distance = ((log_probs - log_probs[own_row]) ** 2).sum(axis=1)
            assert set(rows) <= set(candidates)
            assert np.allclose(distance[rows], np.sort(distance[candidates])[:EXAMPLES_PER_CLASS])


def test_candidates_stay_few_and_come_from_all_rows():
    n = 50_000
    table = pd.DataFrame(
        {
            "given_label": ["a", "b"] * (n // 2),
            "predicted": ["a", "b"] * (n // 2),
            "decision": "keep",
        }
    )
    candidates = find_candidates(table)
    assert list(candidates) == ["a", "b"]
    assert len(candidates["a"]) == MAX_CANDIDATES // 2
    assert not (candidates["a"] % 2).any()
    quarters = np.histogram(candidates["a"], bins=4, range=(0, n))[0]
    assert quarters.min() > MAX_CANDIDATES // 16
    again = find_candidates(table)
    assert (again["a"] == candidates["a"]).all(), "the same page at every writing"


def test_a_round_without_files_has_no_examples(denoise):
    items = pd.DataFrame({"id": ["0000"], "given_label": ["0"], "predicted": ["1"]})
    assert nearest_examples(denoise, {"round": 9}, items) == ([[[], []]], {})
    assert nearest_examples(denoise, {}, items) == ([[[], []]], {})


def test_a_row_that_was_not_judged_has_no_examples(denoise):
    items = pd.DataFrame({"id": ["nobody"], "given_label": ["0"], "predicted": [""]})
    assert nearest_examples(denoise, {"round": 2}, items) == ([[[], []]], {})
