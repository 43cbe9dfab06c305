"""Label sets: text and arrays say the same, and the rarest class of an image is its stratum."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pseudokit.data import encoding

CLASSES = ("ant", "bee", "cat", "dog")
answers = st.integers(0, 30).flatmap(
    lambda n: arrays(np.int64, (n, 4), elements=st.integers(-1, 1))
)


@given(answers, st.sampled_from([CLASSES, ("a cat", "a dog", "ant", "bee")]))
@settings(max_examples=60, deadline=None)
def test_text_and_arrays_say_the_same(labels, classes):
    texts = encoding.names(labels, classes)
    assert (encoding.parse(texts, classes, True) == labels).all()
    assert encoding.labels_among(texts, classes, True) == {*texts} - {""}


def test_what_the_text_of_a_label_set_looks_like():
    rows = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [-1, -1, -1, -1], [0, -1, 1, 0]])
    assert encoding.names(rows, CLASSES).tolist() == ["ant cat", "(none)", "", "?bee cat"]
    assert encoding.labels_among(["ant cow", "ant cat", ""], CLASSES, True) == {"ant cat"}
    assert encoding.labels_among(["cow", "cat", ""], CLASSES, False) == {"cat"}


@given(answers)
@settings(max_examples=60, deadline=None)
def test_a_label_set_is_stratified_by_its_rarest_class(labels):
    strata, n = encoding.strata(labels), (labels == 1).sum(0)
    for row, stratum in zip(labels, strata, strict=True):
        if stratum == -1:
            assert (row < 0).all()
        elif stratum == 4:
            assert (row != 1).all()
            assert (row >= 0).any()
        else:
            assert row[stratum] == 1
            assert n[stratum] == n[row == 1].min()
