"""Votes, counts and shares as tables have them, and weights of rows."""

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Config, Data
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.data.dataset import load_dataset
from pseudokit.labels.annotators import label_by_votes
from pseudokit.run_folder.folder import DEFAULT_CONFIG

VOTES = "id,amy,ben,cat\n1,x,x,y\n2,y,y,y\n3,,-1,\n4,x,,y\n5,x,x,x\n6,y,,\n"


def read(tmp_path, text, columns="amy,ben,cat", labels_are="votes", **keys):
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    label_col = columns.split(",") if "," in columns else columns
    data = Data(
        train=str(tmp_path / "train.csv"), label_col=label_col, labels_are=labels_are, **keys
    )
    return label_by_votes(load_dataset(data))


def by_id(dataset):
    return dict(zip(dataset.id, dataset.given_labels.tolist(), strict=True))


def test_votes_give_the_likeliest_class_and_no_vote_is_no_label(tmp_path):
    dataset = read(tmp_path, VOTES)
    assert dataset.classes == ("x", "y")
    labels = by_id(dataset)
    assert labels["1"] == 0
    assert labels["2"] == labels["6"] == 1
    assert labels["3"] == -1
    assert dataset.split[list(dataset.id).index("3")] == "unlabeled"
    assert dataset.votes.annotators == ("amy", "ben", "cat")
    assert dataset.soft_labels.sum(1) == pytest.approx(np.ones(6))
    uncertain = dataset.soft_labels[list(dataset.id).index("1")]
    assert 0.5 < uncertain[0] < 1


def test_order_of_columns_and_rows_gives_the_same_bytes(tmp_path):
    dataset = read(tmp_path, VOTES)
    turned = pd.read_csv(tmp_path / "train.csv", dtype=str)[::-1][["cat", "id", "ben", "amy"]]
    again = read(tmp_path, turned.to_csv(index=False), "cat,amy,ben")
    assert (again.soft_labels == dataset.soft_labels).all()
    assert (again.given_labels == dataset.given_labels).all()


def test_one_annotator_is_a_label_like_all_others(tmp_path):
    one = read(tmp_path, VOTES, "amy")
    plain = read(tmp_path, VOTES, "amy", "one_hot")
    assert (one.given_labels == plain.given_labels).all()
    assert one.given_targets is one.given_labels


def test_counts_and_shares_are_learned_as_they_are(tmp_path):
    counts = "id,votes_x,votes_y\n1,3,1\n2,0,2\n3,,\n4,1,1\n5,5,0\n"
    dataset = read(tmp_path, counts, "votes_x,votes_y", "counts")
    assert dataset.classes == ("x", "y")
    learned = dataset.given_targets[dataset.given_labels >= 0]
    assert learned == pytest.approx(np.array([[0.75, 0.25], [0, 1], [0.5, 0.5], [1, 0]]))
    assert by_id(dataset)["3"] == -1
    shares = "id,x_vote,y_vote\n1,0.75,0.25\n2,0,1\n3,,\n4,.5,.5\n5,1,0\n"
    again = read(tmp_path, shares, "x_vote,y_vote", "probabilities")
    assert again.given_targets[again.given_labels >= 0] == pytest.approx(learned)


def test_weights_scale_what_a_row_teaches(tmp_path):
    text = "id,label,sure\n1,x,4\n2,y,1\n3,x,\n4,,2\n"
    dataset = read(tmp_path, text, "label", "one_hot", weight_col="sure")
    learned = dataset.given_targets[dataset.given_labels >= 0]
    assert learned.tolist() == [[1, 0], [0, 0.25], [0.25, 0]]
    alike = read(tmp_path, "id,label,sure\n1,x,3\n2,y,3\n", "label", "one_hot", weight_col="sure")
    assert alike.given_targets is alike.given_labels


def test_scored_rows_may_have_labels_or_votes(tmp_path):
    (tmp_path / "test.csv").write_text("id,label\nt1,y\nt2,x\n", encoding="utf-8")
    dataset = read(tmp_path, VOTES, test=str(tmp_path / "test.csv"))
    assert by_id(dataset)["t1"] == 1
    (tmp_path / "test.csv").write_text("id,amy,ben,cat\nt1,y,y,x\nt2,x,x,\n", encoding="utf-8")
    dataset = read(tmp_path, VOTES, test=str(tmp_path / "test.csv"))
    assert by_id(dataset)["t1"] == 1
    assert by_id(dataset)["t2"] == 0
    (tmp_path / "test.csv").write_text("id,amy,ben,cat\nt1,y,owl,x\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.test.*t1.*'owl'"):
        read(tmp_path, VOTES, test=str(tmp_path / "test.csv"))


@pytest.mark.parametrize(
    ("labels_are", "row"),
    [
        ("counts", "-1,2"),
        ("counts", "1.5,2"),
        ("counts", "cat,2"),
        ("counts", "inf,2"),
        ("probabilities", "0.5,0.2"),
        ("probabilities", "1.5,-0.5"),
        ("probabilities", "nan,1"),
    ],
)
def test_numbers_that_cannot_be_votes_are_refused_with_their_line(tmp_path, labels_are, row):
    with pytest.raises(UserError, match=r"train\.csv line 3: .*x, y.*data\."):
        read(tmp_path, f"id,x,y\n1,1,0\n2,{row}\n3,0,1\n", "x,y", labels_are)


def test_a_missing_column_and_a_class_without_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv has no column 'dan'.*data\.label_col"):
        read(tmp_path, VOTES, "amy,dan")
    (tmp_path / "test.csv").write_text("id,label\nt1,z\n", encoding="utf-8")
    counts = "id,votes_x,votes_y\n1,3,1\n2,0,2\n"
    with pytest.raises(UserError, match=r"data\.test: t1 has label 'z'"):
        read(tmp_path, counts, "votes_x,votes_y", "counts", test=str(tmp_path / "test.csv"))


@pytest.mark.parametrize("weight", ["0", "-1", "many", "inf"])
def test_a_weight_is_a_number_above_zero(tmp_path, weight):
    with pytest.raises(UserError, match=r"train\.csv line 2: 'sure'"):
        read(
            tmp_path, f"id,label,sure\n1,x,{weight}\n2,y,1\n", "label", "one_hot", weight_col="sure"
        )


def test_votes_need_a_table_and_plain_classes(tmp_path):
    folder = tmp_path / "photos" / "x"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.labels_are=votes"):
        load_dataset(Data(train=str(folder.parent), labels_are="votes", label_col=["a", "b"]))
    for keys in (["data.multi_label=true"], ["simulate.noise=symmetric"]):
        with pytest.raises(UserError, match=r"data\.labels_are"):
            load_config(DEFAULT_CONFIG, ["data.labels_are=votes", "data.label_col=[a, b]", *keys])
    assert Config().data.labels_are == "one_hot"
