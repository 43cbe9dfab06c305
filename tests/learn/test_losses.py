"""What a multi-label loses: known answers alone, each class by itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pseudokit.training.linear_probe import fit_head
from pseudokit.training.losses import class_weights, criterion, log_probs_of, mass, targets_of


@pytest.fixture
def answers():
    return np.random.default_rng(0).integers(-1, 2, (50, 4))


@pytest.fixture
def logits():
    return torch.from_numpy(np.random.default_rng(1).normal(size=(50, 4))).requires_grad_()


def test_log_probabilities_are_of_no_and_yes_and_sum_to_one(logits):
    said = log_probs_of(logits, True)
    assert said.shape == (50, 4, 2)
    assert torch.allclose(said.exp().sum(-1), torch.ones(50, 4, dtype=said.dtype))
    assert torch.allclose(said[..., 1].exp(), logits.sigmoid())


def test_an_unknown_answer_teaches_nothing_and_the_others_as_if_it_were_not_there(answers, logits):
    loss = criterion(True)(logits, torch.from_numpy(targets_of(answers, True)))
    loss.backward()
    unknown = torch.from_numpy(answers < 0)
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()
    known = torch.from_numpy(answers >= 0)
    alone = F.binary_cross_entropy_with_logits(logits[known], torch.from_numpy(answers).double()[known])
    assert loss.item() == pytest.approx(alone.item())
    assert mass(torch.from_numpy(targets_of(answers, True)), None, True) == (answers >= 0).sum()


def test_a_batch_without_any_answer_is_no_fault(logits):
    nothing = torch.from_numpy(targets_of(np.full((50, 4), -1), True))
    assert criterion(True)(logits, nothing).item() == 0


def test_balanced_weights_make_yes_and_no_count_alike(answers):
    weight, targets = class_weights(answers, 4, True), torch.from_numpy(targets_of(answers, True))
    even = torch.zeros(50, 4, requires_grad=True)
    criterion(True, weight)(even, targets).backward()
    for c in range(4):
        of_yes, of_no = (even.grad[torch.from_numpy(answers[:, c] == answer), c].sum() for answer in (1, 0))
        assert of_yes.item() == pytest.approx(-of_no.item(), rel=1e-4)


def test_a_head_answers_each_class_by_itself(answers):
    rng = np.random.default_rng(2)
    x = (np.maximum(answers, 0) + rng.normal(0, 0.1, answers.shape)).astype(np.float32)
    head, _ = fit_head(x, answers, 4, multi_label=True)
    said = (head(torch.from_numpy(x)) > 0).numpy()
    assert (said == answers)[answers >= 0].all()
