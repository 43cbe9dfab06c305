"""Tables and folders → `Samples`: plain arrays, sorted once, matched by id and never by position."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import Config, Data, Hide, Inject
from ..labels.goals import known
from ..values import UNSEEN, UserError
from .roles import read_role

USES_POOL = ("augment", "joint")
"""Modes in which rows without a label may receive one."""
ROLES = ("train", "pool", "valid", "trusted", "test")
SCORED_ROLES = ("valid", "trusted", "test")
NUMBERS = 20
"""More distinct labels than this that are numbers with decimals are no classes."""


@dataclass(frozen=True)
class Samples:
    """N samples in canonical order (role, then id), so that the order of the input changes nothing.

    id, path, role, group: (N,) str; given: (N,) class index or -1; classes: K names, sorted.
    """

    id: np.ndarray
    path: np.ndarray
    role: np.ndarray
    given: np.ndarray
    group: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: np.ndarray) -> Samples:
        """The samples at these positions (a mask or indices)."""
        return replace(self, **{k: getattr(self, k)[rows] for k in ("id", "path", "role", "given", "group")})

    def table(self) -> pd.DataFrame:
        """As samples.csv holds them: class names, empty where there is no label."""
        names = class_names(self.given, self.classes)
        return pd.DataFrame({"id": self.id, "path": self.path, "role": self.role, "given": names, "group": self.group})


def class_names(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(N,) class indices → (N,) names, -1 → empty."""
    return np.array([*classes, ""], dtype=object)[labels]


def load_samples(data: Data) -> Samples:
    """Read every role that the config names.

    Raises:
        UserError: a file or column is missing, an id stands twice, a label is not a class of the labelled set.
    """
    frames = [read_role(data, role) for role in ROLES if getattr(data, role)]
    table = pd.concat(frames, ignore_index=True)
    table.loc[(table.role == "train") & (table.label == ""), "role"] = "pool"
    _refuse_doubles(table)
    _refuse_learned(table)
    classes = tuple(sorted(set(table.label[table.role == "train"]) - {""}))
    if not classes:
        raise UserError(f"data.train={data.train} holds no label; fill column {data.label_col!r}")
    _refuse_numbers(classes, data)
    _refuse_alike(classes, data)
    from_folder = table.role.eq("test") & Path(data.test or "").is_dir()
    if not set(table.label[from_folder]) <= {*classes, ""}:
        table.loc[from_folder, "label"] = ""  # folders that are no classes
    index = {name: k for k, name in enumerate(classes)}
    alien = table[~table.label.isin([*classes, ""])]
    if len(alien):
        row = alien.iloc[0]
        raise UserError(f"data.{row.role}: {row.id} has label {row.label!r}, which no row of data.train has; remove it")
    table["order"] = table.role.map(ROLES.index)
    table = table.sort_values(["order", "id"], kind="stable")
    given = table.label.map(index | {"": -1}).to_numpy(np.int64)
    columns = {name: table[name].to_numpy(object) for name in ("id", "path", "role", "group")}
    return Samples(given=given, classes=classes, **columns)


def _refuse_doubles(table: pd.DataFrame) -> None:
    """An id may stand once among the rows that are judged, and once in every other role."""
    scope = table.role.where(~table.role.isin(["train", "pool"]), "train or pool")
    doubled = table[pd.DataFrame({"id": table.id, "scope": scope}).duplicated(keep=False)]
    if len(doubled):
        name = doubled.id.iloc[0]
        roles = " and ".join(f"data.{r}" for r in dict.fromkeys(doubled.role[doubled.id == name]))
        raise UserError(f"id {name!r} stands {sum(doubled.id == name)} times in {roles}; keep one row per id")


def _refuse_learned(table: pd.DataFrame) -> None:
    """What is only scored may not be learned as well: a score on learned rows is no score."""
    learned = set(table.path[table.role.isin(["train", "pool"])])
    both = table[table.role.isin(["valid", "trusted"]) & table.path.isin(learned)]
    if len(both):
        row = both.iloc[0]
        raise UserError(f"{len(both)} rows of data.{row.role} are learned too, for example {row.id}; "
                        "remove them from data.train and data.pool")  # fmt: skip


def _refuse_numbers(classes: tuple[str, ...], data: Data) -> None:
    """A target of a regression is not a class, and would be cut into as many classes as it has values."""

    def has_decimals(name: str) -> bool | None:
        try:
            return not float(name).is_integer()
        except ValueError:  # a word
            return None

    kinds = [has_decimals(name) for name in classes]
    if len(classes) > NUMBERS and None not in kinds and any(kinds):
        raise UserError(f"data.train={data.train}: {data.label_col!r} holds {len(classes):,} numbers such as "
                        f"{classes[0]}, a target of a regression; this kit learns classes: put them into bins, and "
                        "write the bin's name")  # fmt: skip


def _refuse_alike(classes: tuple[str, ...], data: Data) -> None:
    """Names that a person cannot tell apart are one class in truth; a line break in one is a quote left open."""
    known: dict[str, str] = {}
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFC", name).split())
        if not plain or UNSEEN.search(name):
            raise UserError(f"data.train={data.train}: label {name!r} holds a line break or nothing that can be seen; "
                            "mend it (a quote that is not closed?)")  # fmt: skip
        other = known.setdefault(re.sub(r"(?<=\d)\.0+$", "", plain), name)
        if other != name:
            raise UserError(f"data.train={data.train}: labels {other!r} and {name!r} differ by blanks, by how an "
                            "accent is coded, or by .0 alone; write them alike")  # fmt: skip


def hide_labels(samples: Samples, hide: Hide) -> tuple[Samples, pd.DataFrame]:
    """Keep `hide.keep` given labels, as equal per class as they allow; the others become pool rows.

    Returns the samples and the hidden truth (id, clean), which serves only for scoring.
    """
    rows = np.random.default_rng(hide.seed).permutation(np.flatnonzero(samples.role == "train"))
    labels = samples.given[rows]
    turn = pd.Series(labels).groupby(labels).cumcount().to_numpy()  # 0 = first drawn of its class
    order = np.lexsort((np.arange(len(rows)), turn))
    hidden = np.sort(rows[order[hide.keep :]])
    given, role = samples.given.copy(), samples.role.copy()
    given[hidden], role[hidden] = -1, "pool"
    truth = pd.DataFrame({"id": samples.id[hidden], "clean": class_names(samples.given[hidden], samples.classes)})
    changed = replace(samples, given=given, role=role)
    order = np.lexsort((samples.id.astype(str), [ROLES.index(r) for r in role]))
    return changed.take(order), truth


def inject_noise(samples: Samples, inject: Inject) -> tuple[Samples, pd.DataFrame]:
    """Flip given labels of the labelled set on purpose; returns the samples and the truth (id, clean, given).

    Raises:
        UserError: there are fewer than two classes, or the matrix does not fit them.
    """
    rows = np.flatnonzero(samples.role == "train")
    clean = samples.given[rows]
    k = len(samples.classes)
    if k < 2:
        raise UserError("inject: needs at least two classes")
    rng = np.random.default_rng(inject.seed)
    if inject.kind == "matrix":
        noisy = _flip_by_matrix(clean, _noise_matrix(inject, k, rng), rng)
    else:
        flipped = rng.choice(len(rows), round(inject.rate * len(rows)), replace=False)
        shift = 1 if inject.kind == "pair" else rng.integers(1, k, len(flipped))  # never 0: a flip always differs
        noisy = clean.copy()
        noisy[flipped] = (clean[flipped] + shift) % k
    given = samples.given.copy()
    given[rows] = noisy
    truth = {"id": samples.id[rows], "clean": clean, "given": noisy}
    truth |= {name: class_names(truth[name], samples.classes) for name in ("clean", "given")}
    return replace(samples, given=given), pd.DataFrame(truth)


def _noise_matrix(inject: Inject, k: int, rng: np.random.Generator) -> np.ndarray:
    """T[true, given]; without `inject.matrix` a random class-dependent one whose mean flip rate is `inject.rate`."""
    if inject.matrix is None:
        rate = rng.uniform(0.5, 1.5, k)
        rate = np.minimum(inject.rate * rate / rate.mean(), 1)
        off = rng.dirichlet(np.full(k - 1, 0.5), k) * rate[:, None]
        return np.stack([np.insert(row, i, 1 - row.sum()) for i, row in enumerate(off)])
    matrix = np.array(inject.matrix, float) if len({len(row) for row in inject.matrix}) == 1 else np.empty((0, 0))
    if matrix.shape != (k, k) or not np.allclose(matrix.sum(1), 1, atol=1e-6):
        raise UserError(
            f"inject.matrix must be {k} rows of {k} shares that sum to 1, in the order of the sorted classes"
        )
    return matrix


def _flip_by_matrix(clean: np.ndarray, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edges = matrix.cumsum(1)[clean]
    edges[:, -1] = 1.0
    return (rng.random((len(clean), 1)) >= edges).sum(1)


def prepare_samples(config: Config, mode: str) -> tuple[Samples, dict[str, pd.DataFrame]]:
    """All of the input for one mode: read, hide, inject. Returns samples and the truths by file name."""
    from .builtin import BUILTIN_KEEP, builtin_roles

    data, hide = config.data, config.hide
    uses_pool = mode in USES_POOL
    if data.train is None:
        data = data.model_copy(update=builtin_roles(data))
        if uses_pool and hide.keep is None:
            hide = hide.model_copy(update={"keep": BUILTIN_KEEP})
    samples, truths = load_samples(data), {}
    if hide.keep and uses_pool:
        samples, truths["hidden.csv"] = hide_labels(samples, hide)
    if config.inject.kind:
        samples, truths["injected.csv"] = inject_noise(samples, config.inject)
    check_samples(samples, config, mode)
    return samples, truths


def check_samples(samples: Samples, config: Config, mode: str) -> None:
    """Refuse what cannot be trained: one class, classes smaller than the folds, an empty pool."""
    counts = np.bincount(samples.given[samples.role == "train"], minlength=len(samples.classes))
    if len(counts) < 2:
        raise UserError(f"data.train has one class only ({samples.classes[0]!r}); at least two are needed")
    small = int(counts.argmin())
    if counts[small] < config.pseudo.folds and (config.pseudo.rounds or mode == "train"):
        raise UserError(
            f"class {samples.classes[small]!r} has {counts[small]} rows in data.train, fewer than "
            f"pseudo.folds={config.pseudo.folds}; add rows, merge the class or set fewer folds"
        )
    if config.goal is not None and config.goal not in known(samples.classes):
        some = ", ".join(samples.classes[:3])
        raise UserError(f"goal={config.goal} does not fit these {len(counts)} classes ({some}, …); "
                        f"choose one of {', '.join(known(samples.classes))}")  # fmt: skip
    if mode in USES_POOL and not (samples.role == "pool").any():
        raise UserError("the pool is empty: give data.pool, leave labels in data.train empty, or set hide.keep")
    if mode in USES_POOL and not config.rules.pool_may_include_test:
        _refuse_test_in_pool(samples)


def _refuse_test_in_pool(samples: Samples) -> None:
    pool = samples.role == "pool"
    both = pool & np.isin(samples.path, samples.path[samples.role == "test"])
    if both.any():
        raise UserError(
            f"{both.sum():,} of {pool.sum():,} pool rows are rows of data.test, for example {samples.id[both][0]!r}, "
            "which rules.pool_may_include_test=false forbids; take them out of data.pool"
        )
