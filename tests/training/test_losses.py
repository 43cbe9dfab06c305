"""Losses: known answers alone where an image may have several labels, and the consistency term."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pseudokit.config.training_keys import Train
from pseudokit.config.types import UserError
from pseudokit.system.distributed import ProcessGroup
from pseudokit.training.linear_probe import fit_head
from pseudokit.training.losses import (
    LOSSES,
    BinaryCrossEntropy,
    Consistency,
    check_loss,
    make_criterion,
)


@pytest.fixture
def answers():
    return np.random.default_rng(0).integers(-1, 2, (50, 4))


@pytest.fixture
def logits():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(50, 4))).requires_grad_()


def test_log_probabilities_are_of_no_and_yes_and_sum_to_one(logits):
    output = BinaryCrossEntropy.log_probs(logits)
    assert output.shape == (50, 4, 2)
    assert torch.allclose(output.exp().sum(-1), torch.ones(50, 4, dtype=output.dtype))
    assert torch.allclose(output[..., 1].exp(), logits.sigmoid())


def test_an_unknown_answer_teaches_nothing_and_the_others_as_if_it_were_not_there(answers, logits):
    loss = BinaryCrossEntropy()(logits, torch.from_numpy(BinaryCrossEntropy.targets(answers)))
    loss.backward()
    unknown = torch.from_numpy(answers < 0)
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()
    known = torch.from_numpy(answers >= 0)
    alone = F.binary_cross_entropy_with_logits(
        logits[known], torch.from_numpy(answers).double()[known]
    )
    assert loss.item() == pytest.approx(alone.item())
    assert (
        BinaryCrossEntropy().count(torch.from_numpy(BinaryCrossEntropy.targets(answers)))
        == (answers >= 0).sum()
    )


def test_a_batch_without_any_answer_is_no_fault(logits):
    nothing = torch.from_numpy(BinaryCrossEntropy.targets(np.full((50, 4), -1)))
    assert BinaryCrossEntropy()(logits, nothing).item() == 0


def test_balanced_weights_make_yes_and_no_count_alike(answers):
    weight, targets = (
        BinaryCrossEntropy.class_weights(answers, 4),
        torch.from_numpy(BinaryCrossEntropy.targets(answers)),
    )
    even = torch.zeros(50, 4, requires_grad=True)
    BinaryCrossEntropy(weight)(even, targets).backward()
    for c in range(4):
        of_yes, of_no = (
            even.grad[torch.from_numpy(answers[:, c] == answer), c].sum() for answer in (1, 0)
        )
        assert of_yes.item() == pytest.approx(-of_no.item(), rel=1e-4)


def test_a_head_answers_each_class_by_itself(answers):
    rng = np.random.default_rng(2)
    x = (np.maximum(answers, 0) + rng.normal(0, 0.1, answers.shape)).astype(np.float32)
    head, _ = fit_head(x, answers, 4, True, answers)
    output = (head(torch.from_numpy(x)) > 0).numpy()
    assert (output == answers)[answers >= 0].all()


def made(loss, labels, multi_label=False, smoothing=0.1):
    """The loss of this name for labels of four classes, in double precision."""
    spec = SimpleNamespace(classes=tuple("abcd"), multi_label=multi_label)
    train = Train(loss=loss, label_smoothing=smoothing)
    return make_criterion(labels, spec, train).double()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_a_batch_average_to_the_loss_of_the_whole(loss, multi_label, answers, logits):
    """Also where the parts differ in size, in known answers and in the weights of their classes."""
    labels = answers if multi_label else np.arange(50) ** 2 % 4
    criterion = made(loss, labels, multi_label)
    targets = torch.from_numpy(criterion.targets(labels))
    whole = criterion(logits, targets).item()
    for n_processes, n_parts in [(1, 1), (3, 1), (1, 4), (2, 3)]:
        groups = [ProcessGroup(n_processes, index) for index in range(n_processes)]
        parts = [rows for group in groups for rows in group.parts(n_parts)]
        assert sorted(i for rows in parts for i in range(50)[rows]) == [*range(50)]
        shares = [criterion.of_part(logits[rows], targets, rows) for rows in parts]
        assert sum(shares).item() == pytest.approx(whole, rel=1e-6 if multi_label else 1e-12)


def test_parts_of_unlabeled_images_sum_to_the_loss_of_all_of_them(logits):
    """Mean and variance of the confidence are those of the batch, and move once."""
    views = [logits.detach(), logits.detach() + 0.3, torch.zeros(50, 4)]
    losses, means = [], []
    for n_parts in (1, 3, 50):
        term = Consistency(2.0)
        for _ in range(2):  # the step is repeated
            parts = [*term.losses(lambda pixels: 3 * pixels, views, n_parts)]
        losses.append(sum(parts).item())
        means.append(term.mean.item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert means == pytest.approx([means[0]] * 3, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_soft_targets_of_certain_classes_teach_as_those_classes_and_of_weight_zero_nothing(
    loss, logits
):
    labels = np.arange(48) % 4  # all classes are as frequent, so that they weigh alike in any loss
    criterion = made(loss, labels)
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    hard = criterion(logits[:48], torch.from_numpy(labels))
    assert criterion(logits[:48], one_hot).item() == pytest.approx(hard.item())
    one_hot[24:] = 0
    criterion(logits[:48], one_hot).backward()
    assert (logits.grad[24:] == 0).all()
    assert (logits.grad[:24].abs().sum(1) > 0).all()


def test_a_loss_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"train\.loss"):
        check_loss(Train(loss="mean"))
    for loss in LOSSES:
        check_loss(Train(loss=loss))


@pytest.mark.parametrize(
    ("teachers", "label"),
    [
        ([0.0, 0.0], 0),
        ([0.5, 0.5], 0),
        ([0.2, 0.8], 0),
        ([0.05, 0.95], 1),
        ([0.9, 0.1], 0),
    ],
)
def test_a_student_overrules_unsure_teachers_but_not_sure_ones(teachers, label):
    """The network says (0.88, 0.12) of every view: the strong view learns class 0 unless teachers are surer of 1."""
    logits = torch.tensor([[2.0, 0.0]])
    views, logs = torch.zeros(1, 1, 1, 1), torch.tensor([teachers]).clamp(min=1e-30).log()
    (loss,) = Consistency(1.0).losses(lambda pixels: logits, [views, views, logs], 1)
    assert loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.tensor([label]))), rel=0.02
    )


def test_sure_answers_weigh_one_and_unsure_ones_less():
    term = Consistency(1.0)
    confidence = torch.tensor([0.98, 0.98, 0.98, 0.4])
    for _ in range(400):
        weights = term.weigh(confidence)
    assert torch.allclose(weights[:3], torch.ones(3))
    assert weights[3] < 0.2
    assert torch.allclose(Consistency(1.0).weigh(confidence), torch.ones(4)), (
        "at first, nobody is sure: all count"
    )
