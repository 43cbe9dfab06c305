"""audit.csv: a sample of the labeled set for a person to judge; what it says once corrections are applied."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.csv_text import escape_formulas
from ..data.dataset import Dataset
from ..data.encoding import has_label, names
from ..labels.audit import STRATA, draw, estimate, strata, weights
from ..labels.decisions import Decisions
from ..system.files import seed_of, write_csv
from .corrections import decided
from .folder import Run


def audit(run: Run, dataset: Dataset, decisions: Decisions) -> dict:
    """Write audit.csv (id, path, given, stratum, weight) and return what metrics.json says of it.

    What is measured are the automatic decisions, those of label_issues.csv; human ones only say what is true. Sampled
    rows that a person relabeled or dropped were wrong; ambiguous ones are counted, but not as wrong.
    """
    labeled = np.flatnonzero(has_label(dataset.given_labels))
    p_wrong = decisions.p_wrong[labeled]
    stratum = strata(p_wrong, p_wrong > 0.5)
    rows = draw(stratum, run.config.pseudo.audit_size, seed_of(run.config.seed, "audit"))
    picked = labeled[rows]
    write_csv(
        run.path / "audit.csv",
        escape_formulas(
            pd.DataFrame(
                {
                    "id": dataset.id[picked],
                    "path": dataset.path[picked],
                    "given_label": names(dataset.given_labels[picked], dataset.classes),
                    "stratum": np.array(STRATA)[stratum[rows]],
                    "weight": weights(stratum, rows),
                }
            )
        ),
    )
    table = decided(run.path)
    says = dict(zip(table.id, table.action, strict=True))
    actions = np.array([says.get(name, "") for name in dataset.id[picked]], object)
    seen = actions != ""
    facts = {"n": len(rows), "reviewed": int(seen.sum()), "ambiguous": int((actions == "ambiguous").sum())}
    wrong = np.isin(actions[seen], ["relabel", "drop"])
    return facts | estimate(stratum, rows[seen], wrong, float(p_wrong.mean()))
