"""The configuration: what is read, what is refused, and that a refusal names the key."""

import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Config
from pseudokit.config.load import KEYS, differences, dump_config, load_config
from tests.conftest import ROOT
from tests.naming import names, refused


@pytest.fixture
def read(tmp_path):
    """read(text, *overrides) → Config of a YAML file with that text."""

    def read(text: str, *overrides: str) -> Config:
        file = tmp_path / "some.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, list(overrides))

    return read


def refusal(read, text: str, *overrides: str) -> str:
    """What a person is told; the file is named for what stands in it, and not for what was typed."""
    message = refused(lambda: read(text, *overrides))
    assert names(message, "some.yaml") == bool(text)
    return message


def test_an_override_beats_the_file_and_the_file_beats_the_default(read):
    config = read("train: {epochs: 9, batch_size: 32}\nseed: 4", "train.epochs=2", "pseudo.folds=5")
    assert (config.train.epochs, config.train.batch_size, config.seed, config.pseudo.folds) == (
        2,
        32,
        4,
        5,
    )
    assert config.train.lr == Config().train.lr


def test_an_empty_file_gives_the_defaults(read):
    assert read("") == read("# nothing but a remark\n") == Config()


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.0e-3"])
def test_a_number_in_any_notation_is_a_number(read, text):
    assert read(f"train: {{lr: {text}}}").train.lr == 0.001
    assert read("", f"train.lr={text}").train.lr == 0.001


def test_a_cutoff_is_a_number_where_it_can_be_one_and_else_the_name_of_a_rule(read):
    for text, cutoff in [("0.9", 0.9), ("9e-1", 0.9), ("2", 2.0), ("adaptive", "adaptive")]:
        assert read("", f"pseudo.cutoff={text}").pseudo.cutoff == cutoff
    assert read("pseudo: {cutoff: '0.9'}").pseudo.cutoff == 0.9


def test_lists_mappings_and_nothing_can_be_given_on_the_command_line(read):
    config = read(
        "",
        "train.augment=[{HorizontalFlip: {p: 0.5}}]",
        "model.kwargs={drop_rate: 0.2}",
        "data.size=",
    )
    assert config.train.augment == [{"HorizontalFlip": {"p": 0.5}}]
    assert config.model.kwargs == {"drop_rate": 0.2}
    assert config.data.size is None


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("name", "007"),
        ("name", "1.10"),
        ("data.label_col", "yes"),
        ("data.group_col", "2024-01-01"),
    ],
)
def test_the_value_of_a_text_key_is_taken_as_it_is_typed(read, key, text):
    """YAML reads these as 7, 1.1, true and a date; a run folder or a column is called what the user typed."""
    value = read("", f"{key}={text}")
    for part in key.split("."):
        value = getattr(value, part)
    assert value == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr=1e-3", "train.lr"),
        ("epochs=3", "train.epochs"),
        ("train.epoch=3", "train.epochs"),
        ("pseudo.round=1", "pseudo.rounds"),
        ("fold=3", "pseudo.folds"),
        ("data.labelcol=y", "data.label_col"),
        ("train.optimizr=sgd", "train.optimizer"),
        ("data.lr=1", "train.lr"),
        ("nmae=x", "name"),
    ],
)
def test_an_unknown_key_names_the_nearest(read, typed, meant):
    message = refusal(read, "", typed)
    assert names(message, typed.split("=")[0], meant)


def test_an_unknown_key_like_no_other_is_named_without_a_guess(read):
    message = refusal(read, "zzqqxx: 1")
    assert names(message, "zzqqxx")
    assert not any(names(message, key) for key in KEYS)


def test_all_errors_are_reported_at_once_each_with_its_dotted_name(read):
    wrong = [
        "train.lr=-1",
        "pseudo.folds=1",
        "data.channels=2",
        "time_budget=soon",
        "model.nmae=x",
        "nonsense",
    ]
    message = refusal(read, "train: {ema_decay: 1.5}\nsimulate: {keep_labels: 0}", *wrong)
    for name in (
        "train.lr",
        "pseudo.folds",
        "data.channels",
        "time_budget",
        "model.nmae",
        "'nonsense'",
        "train.ema_decay",
        "simulate.keep_labels",
    ):
        assert names(message, name), name
    assert names(message, "-1"), "what was given"
    assert names(message, "model.name"), "what was meant"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (["pseudo.power=2"], ["pseudo.power", "pseudo.targets"]),
        (["pseudo.trim=0.1", "pseudo.targets=weighted"], ["pseudo.trim", "pseudo.targets"]),
        (
            ["train.unlabeled_per_batch=1", "train.batch_size=1"],
            ["train.unlabeled_per_batch", "train.batch_size"],
        ),
        (["train.min_labeled_fraction=0.25"], ["train.unlabeled_per_batch"]),
        (["train.accumulate=9", "train.batch_size=8"], ["train.accumulate", "train.batch_size"]),
    ],
)
def test_a_shape_that_would_have_no_effect_is_refused(read, typed, keys):
    message = refusal(read, "", *typed)
    for key in keys:
        assert names(message, key)


def test_a_wrong_augmentation_is_named_by_its_key_alone(read):
    """The field is a union; its branches are pydantic's affair and not the user's."""
    message = refusal(read, "", "train.augment=[HorizontalFlip]")
    assert names(message, "train.augment")
    assert "train.augment." not in message


def test_a_key_below_a_value_is_refused_by_the_name_of_the_value(read):
    assert names(refusal(read, "", "data.train.x=1"), "data.train")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8.5h", 30600),
        ("30m", 1800),
        ("90", 90),
        ("90s", 90),
        ("'90'", 90),
        ("1.5", 1.5),
        (" 2 h", 7200),
    ],
)
def test_a_time_budget_is_read_in_its_unit(read, text, seconds):
    assert read(f"time_budget: {text}").time_budget == seconds
    assert read("", f"time_budget={text}").time_budget == seconds


def test_a_size_of_memory_is_read_in_its_unit(read):
    sizes = {"4g": 2**32, "500M": 500 * 2**20, "4096": 4096}
    for text, size in sizes.items():
        assert read("", f"data.memory={text}").data.memory == size
    for text in ("4x", "0", "90s"):
        assert names(refusal(read, "", f"data.memory={text}"), "data.memory")


@pytest.mark.parametrize("text", ["soon", "0", "-5", "1.2.3h", "h", "8h30"])
def test_a_wrong_time_budget_is_refused(read, text):
    assert names(refusal(read, "", f"time_budget={text}"), "time_budget")


@pytest.mark.parametrize("name", ["exp7", "a-b.c+1", "Größe_2", "x"])
def test_a_name_that_can_be_a_folder_is_taken(read, name):
    assert read(f"name: '{name}'").name == name


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b", "-rf", "a\\b", "x\\n"])
def test_a_name_that_leaves_the_folder_is_refused(read, name):
    text = f'name: "{name}"' if name == "x\\n" else f"name: '{name}'"
    assert names(refusal(read, text), "name")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "3"])
def test_yaml_that_is_no_mapping_is_refused(read, text):
    refusal(read, text)


@pytest.mark.parametrize("text", ["train:\n\tlr: 1\n", "a: [1, 2\n", "a: b: c\n"])
def test_broken_yaml_is_refused_with_file_and_line(read, text):
    message = refusal(read, text)
    assert names(message, "line 2") or names(message, "line 1")


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a: \x80")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "binary.yaml"):
        refused(lambda path=path: load_config(path, []), path)


# Control characters and Unicode line ends are left out: PyYAML itself does not bring them back.
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("\n\t"),
    max_size=12,
)
positive = st.floats(1e-12, 1e12)
augments = st.lists(
    st.dictionaries(texts, st.dictionaries(texts, st.none() | st.integers() | texts), max_size=1)
)
trees = st.fixed_dictionaries(
    {
        "name": st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,8}", fullmatch=True),
        "seed": st.integers(0, 2**40),
        "time_budget": st.none() | positive,
        "data": st.fixed_dictionaries(
            {"train": st.none() | texts, "label_col": texts, "image_suffix": texts}
        ),
        "simulate": st.fixed_dictionaries(
            {"noise_rate": st.floats(0, 1), "noise": st.none() | st.just([[0.5, 0.5], [0, 1]])}
        ),
        "model": st.fixed_dictionaries(
            {"kwargs": st.dictionaries(texts, st.booleans() | st.floats(0, 1) | texts)}
        ),
        "train": st.fixed_dictionaries(
            {"lr": positive, "epochs": positive, "augment": st.just("auto") | augments}
        ),
        "pseudo": st.fixed_dictionaries(
            {"cutoff": st.none() | st.floats(0, 1e6), "train_baseline": st.booleans()}
        ),
    }
)


@settings(max_examples=80, deadline=None)
@given(trees)
def test_a_dumped_config_reads_back_as_the_same(tree):
    config = Config.model_validate(tree)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_config(config), encoding="utf-8")
        again = load_config(file, [])
    assert again == config
    assert differences(config, again) == []


def test_a_dumped_config_holds_every_key():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_config(Config()), encoding="utf-8")
        lines = file.read_text(encoding="utf-8")
    for name in KEYS:
        assert f"{name.rsplit('.', 1)[-1]}:" in lines


def test_differences_name_the_keys_that_differ_and_no_other(read):
    old = read("model: {kwargs: {a: 1}}", "train.lr=1", "seed=3")
    new = read("model: {kwargs: {a: 2, b: 1}}", "train.lr=2", "seed=3", "data.train=x.csv")
    lines = differences(old, new)
    assert [line.split(":")[0] for line in lines] == ["data.train", "model.kwargs", "train.lr"]
    assert lines[2] == "train.lr: 1.0 → 2.0"
    assert differences(old, old) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name
)
def test_every_config_that_we_ship_is_right(file):
    assert isinstance(load_config(file, ["model.checkpoint=a.safetensors"]), Config)


def test_the_student_has_the_teachers_model_or_its_own():
    model = {
        "name": "resnet18",
        "checkpoint": "a.pth",
        "kwargs": {"drop_rate": 0.2},
        "freeze_backbone": True,
    }
    larger = Config(model=model, student={"name": "resnet50"})
    assert larger.model_of("round_1/fold_0") == larger.model
    expected = {"name": "resnet50", "checkpoint": None, "kwargs": {}, "freeze_backbone": False}
    assert (
        larger.model_of("student").model_dump()
        == larger.model_of("baseline").model_dump()
        == expected
    )
    assert Config(model=model).model_of("student") == Config(model=model).model
    assert (
        Config(model=model, student={"checkpoint": "b.pth"}).model_of("student").checkpoint
        == "b.pth"
    )


def test_the_student_is_trained_as_the_teachers_but_for_its_augmentation():
    config = Config(train={"augment": "written", "lr": 0.1}, student={"augment": "elastic"})
    assert config.train_of("round_1/fold_0") == config.train
    for arm in ("student", "baseline"):
        assert config.train_of(arm) == config.train.model_copy(update={"augment": "elastic"})
    assert Config().train_of("student") == Config().train


OLD_KEYS = yaml.safe_load(
    (ROOT / "src" / "pseudokit" / "config" / "old_keys.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("old", OLD_KEYS)
def test_a_key_of_an_earlier_version_says_what_to_write_in_its_place(read, old):
    instead = OLD_KEYS[old]
    refused(lambda: read("", f"{old}=1"), old, instead)
    named = re.findall(
        r"\b(?:data|model|predict|pseudo|simulate|student|train|wandb)\.\w+", instead
    )
    assert {*named} <= {*KEYS}
    assert old not in KEYS


def test_a_reader_has_at_most_95_keys_to_look_through():
    assert len(KEYS) <= 95
