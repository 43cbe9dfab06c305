"""What a run costs, and what is left out of it where the budget is smaller."""

from types import SimpleNamespace

import numpy as np
import pytest

from pseudokit.config.keys import Config
from pseudokit.config.load import with_changes
from pseudokit.run_folder import time_budget
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.time_budget import Pace, cheaper_plans, costs, planned

PACE = Pace(teacher=0.5, student=0.5, image=0.001)
CONFIG = Config(
    pseudo={"rounds": 3, "folds": 5}, train={"epochs": 8, "batch_size": 10, "min_steps": 100}
)


class Rows(list):
    """Samples of which the number and the given labels are all that counts."""

    given_labels = np.repeat([0, 1, -1], 100)


PREPARED = SimpleNamespace(
    judged=Rows(range(300)), dataset=SimpleNamespace(classes=("a", "b")), tested=50, pixels=None
)
PREPARED.dataset = type("All", (Rows,), {"classes": ("a", "b")})(range(320))


def options() -> list[Config]:
    return [with_changes(CONFIG, changes) for changes in cheaper_plans(CONFIG)]


def total(config: Config) -> float:
    return sum(costs(config, PREPARED, PACE).values())


def test_every_option_is_cheaper_than_what_was_asked_for_and_the_first_is_that():
    first, *others = options()
    assert first == CONFIG
    assert all(total(option) < total(CONFIG) for option in others)
    assert all(option.pseudo.folds >= 2 and option.pseudo.rounds >= 1 for option in others)


def test_costs_count_every_network_by_its_steps():
    labeled = SimpleNamespace(
        judged=Rows(range(200)), dataset=Rows(range(320)), tested=50, pixels=None
    )
    labeled.judged.given_labels = np.repeat([0, 1], 100)
    seconds = costs(CONFIG, labeled, PACE)
    a_fold, all_rows = 8 * 160 / 10, 8 * 200 / 10
    assert seconds["teachers"] == pytest.approx(3 * 5 * a_fold * 0.5)
    assert seconds["student"] == seconds["baseline"] == pytest.approx(all_rows * 0.5)
    alone = with_changes(CONFIG, {"pseudo.train_baseline": False})
    assert costs(alone, labeled, PACE)["baseline"] == 0
    shared = with_changes(CONFIG, {"pseudo.top_fraction": 0.5})
    assert costs(shared, PREPARED, PACE)["student"] == pytest.approx(8 * 250 / 10 * 0.5)


def test_without_rounds_there_are_fewer_epochs():
    config = with_changes(CONFIG, {"pseudo.rounds": 0})
    epochs = [with_changes(config, changes).train.epochs for changes in cheaper_plans(config)]
    assert epochs[0] == max(epochs) == 8
    assert min(epochs) == 2


def test_the_plan_fits_wherever_one_does_and_more_time_never_leaves_out_more(tmp_path, monkeypatch):
    monkeypatch.setattr(time_budget, "probe", lambda run, prepared: PACE)
    places = [(option.pseudo, option.train) for option in options()]
    least, before = min(map(total, options())), len(places)
    for i, budget in enumerate(np.linspace(0.5 * least, 1.3 * total(CONFIG), 40)):
        run = Run(
            tmp_path / str(i), "augment", CONFIG.model_copy(update={"time_budget": float(budget)})
        )
        chosen = planned(run, PREPARED)
        assert planned(run, PREPARED) == chosen, "the same every time the run goes on"
        assert total(chosen) <= 0.95 * budget or total(chosen) == least
        at = places.index((chosen.pseudo, chosen.train))
        assert at <= before
        before = at
        assert run.closing > 0
    assert chosen.pseudo == CONFIG.pseudo
    assert chosen.train == CONFIG.train


def test_a_run_that_has_begun_is_not_planned_anew(tmp_path):
    (tmp_path / "round_1").mkdir()
    run = Run(tmp_path, "augment", CONFIG.model_copy(update={"time_budget": 1.0}))
    assert planned(run, PREPARED) == run.config
