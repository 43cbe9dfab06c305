"""A model that is there is read again, and refused where it was made from something else."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pseudokit.config.keys import Config, Student, Train
from pseudokit.config.types import UserError
from pseudokit.system.files import read_json, write_json
from pseudokit.training.jobs import JobRunner, LinearProbe
from pseudokit.training.trainer import Trainer

PIXELS = (load_digits().images[:120] * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
LABELS = load_digits().target[:120].astype(np.int64)
CLASSES = tuple("0123456789")


def job_runner(folder, input_hash="these images", **options) -> JobRunner:
    train = Train(epochs=0.1, batch_size=16, amp_dtype="fp32", device="cpu", **options)
    trainer = Trainer(Config(train=train, student=Student()), PIXELS, LABELS, CLASSES)
    return JobRunner(folder, trainer, LinearProbe(folder, trainer, input_hash), None, lambda seconds: True, input_hash)


def test_a_model_of_other_labels_images_or_keys_is_refused(tmp_path):
    rows, other = np.arange(100), (LABELS[:100] + 1) % 10
    first = job_runner(tmp_path).fit("round_1/fold_0", rows, LABELS[:100])
    again = job_runner(tmp_path, num_workers=3, checkpoint_every=5).fit("round_1/fold_0", rows, LABELS[:100])
    assert first.hash == again.hash
    for other_runner, labels_of_fold in [
        (job_runner(tmp_path), other),
        (job_runner(tmp_path, "others"), LABELS[:100]),
        (job_runner(tmp_path, lr=1e-4), LABELS[:100]),
    ]:
        with pytest.raises(UserError, match=r"round_1/fold_0/model\.json"):
            other_runner.fit("round_1/fold_0", rows, labels_of_fold)
    file = tmp_path / "round_1" / "fold_0" / "model.json"
    meta = read_json(file)
    del meta["input_hash"]
    write_json(file, meta)
    assert job_runner(tmp_path).fit("round_1/fold_0", rows, other).hash == first.hash, "as the first version left it"


def test_a_baseline_is_the_same_whatever_steps_its_student_takes(tmp_path):
    """Corrections change the number of rows a little; the baseline is not trained again for that."""
    first = job_runner(tmp_path).fit("baseline", np.arange(100), LABELS[:100], steps=3)
    assert job_runner(tmp_path).fit("baseline", np.arange(100), LABELS[:100], steps=4).hash == first.hash
