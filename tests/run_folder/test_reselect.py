"""--mode select: its table, and which keys it takes."""

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.data.dataset import Dataset
from pseudokit.labels.decide import decide_labels
from pseudokit.run_folder.reselect import DECIDES, cutoff_table


@pytest.mark.parametrize("align", [False, True])
def test_the_table_tells_the_coverage_that_a_cutoff_decides(align):
    rng = np.random.default_rng(0)
    given_labels = np.concatenate([np.arange(60) % 3, np.full(600, -1)])
    # The models favor class 0 on unlabeled rows.
    probs = rng.dirichlet([6, 1, 1], len(given_labels))
    probs[:60] = [np.roll(row, label) for row, label in zip(probs[:60], given_labels, strict=False)]
    empty = np.full(len(given_labels), "", object)
    dataset = Dataset(
        empty,
        empty,
        np.where(given_labels < 0, "unlabeled", "train"),
        given_labels,
        empty,
        ("a", "b", "c"),
    )
    decisions = decide_labels(
        np.log(probs), given_labels, "augment", Pseudo(cutoff=0.8, distribution_alignment=align)
    )
    coverage = cutoff_table(dataset, decisions).set_index("cutoff").coverage
    accepted = (decisions.decision == "accept").sum() / 600
    assert 0.05 < accepted < 0.95
    assert coverage[0.8] == pytest.approx(accepted)


class Spy:
    """The section `pseudo` that remembers which of its keys were read."""

    def __init__(self, policy):
        self.policy, self.read = policy, set()

    def __getattr__(self, key):
        self.read.add(f"pseudo.{key}")
        return getattr(self.policy, key)


def test_select_takes_the_keys_by_which_labels_are_decided_and_no_others():
    rng = np.random.default_rng(0)
    given_labels = np.concatenate([np.arange(300) % 3, np.full(60, -1)])
    log_probs = np.log(rng.dirichlet([1, 1, 1], len(given_labels)))
    read = set()
    for mode in ("augment", "denoise", "joint"):
        for policy in (Pseudo(), Pseudo(min_precision=0.5, top_fraction=0.5, relabel_cutoff=0.9)):
            spy = Spy(policy)
            decide_labels(log_probs, given_labels, mode, spy)
            read |= spy.read
    # what a label teaches, and not which it is
    read -= {f"pseudo.{key}" for key in ("targets", "power", "trim")}
    assert {*DECIDES} == read | {"data.learn_from_test"}
