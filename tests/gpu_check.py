"""What only a GPU can show: `make gpu-check`. Elsewhere every check is skipped by name; `make test` leaves them out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Model, Train
from pseudokit.system.files import read_json
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import Computation, pick_amp_dtype
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.predict import embed, log_probs
from tests.conftest import QUICK, run_script

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device on this machine"
)

PIXELS = (load_digits().images * 15.9).astype(np.uint8).repeat(4, 1).repeat(4, 2)[..., None]
LABELS = load_digits().target
ROWS = np.arange(len(LABELS))
PARTS = {
    "average": {"ema_decay": 0.99},
    "mix": {"mixup": 0.2, "cutmix": 1.0},
    "consistency_weight": {"consistency_weight": 1.0},
    "head first": {"linear_probe_first": True},
}


def learned(precision: str, **options) -> TrainedModel:
    torch.manual_seed(0)
    network, form = create_model(Model(), tuple("0123456789"), 32, 1)
    train = Train(device="cuda", amp_dtype=precision, **options)
    training_set = TrainingSet(PIXELS, ROWS[:1200], LABELS[:1200], 150, 0, unlabeled=ROWS[1200:])
    network, history = train_model(network, form, training_set, train)
    assert history.loss.iloc[-1] < 0.5 * history.loss.iloc[0]
    return TrainedModel(network, form)


def predicted(model: TrainedModel, device: str, precision: str) -> ndarray:
    model = replace(model, spec=replace(model.spec, amp_dtype=precision))
    return log_probs(model, PIXELS, ROWS[1200:], device=device)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_what_is_learned_on_the_gpu_is_predicted_there_as_on_the_cpu(precision):
    model = learned(precision)
    on_gpu = predicted(model, "cuda", precision)
    assert (on_gpu.argmax(1) == LABELS[1200:]).mean() > 0.9
    exact = predicted(model, "cpu", "fp32")
    assert np.abs(np.exp(on_gpu) - np.exp(exact)).max() < (0.01 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_step_learns_on_the_gpu(part):
    on_gpu = predicted(learned("auto", **PARTS[part]), "cuda", "auto")
    assert (on_gpu.argmax(1) == LABELS[1200:]).mean() > 0.9


def test_photos_augmented_by_workers_are_those_of_one_process():
    alone, helped = (learned("fp32", augment="photo", num_workers=n) for n in (0, 2))
    on_cpu = [predicted(model, "cpu", "fp32") for model in (alone, helped)]
    np.testing.assert_allclose(*on_cpu, atol=0.05)


def test_copies_are_right_although_nobody_waits_for_them():
    batch = torch.arange(1 << 20, dtype=torch.uint8).view(1024, 32, 32, 1)
    network, form = create_model(Model(), ("a", "b"), 32, 1)
    form = replace(form, mean=[0.0], std=[1.0])
    images = Computation(network, form, "cuda", "fp32").run(torch.nn.Identity(), batch)
    assert torch.equal((images.permute(0, 2, 3, 1) * 255).round().cpu(), batch.float())


def test_embeddings_are_those_of_the_cpu():
    torch.manual_seed(0)
    network, form = create_model(Model(), tuple("0123456789"), 32, 1)
    on_gpu, on_cpu = (
        embed(network, form, PIXELS, ROWS[:64], Train(device=device, amp_dtype="fp32"))
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-2)


def test_auto_takes_a_16_bit_type():
    network, _ = create_model(Model(), tuple("0123456789"), 32, 1)
    assert pick_amp_dtype("auto", torch.device("cuda"), 32, network) in (
        torch.bfloat16,
        torch.float16,
    )


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_a_run_on_the_gpu_from_start_to_report(csv_data, mode):
    folder, args = csv_data
    done = run_script("pseudo.py", "--mode", mode, *args, *QUICK, "train.device=cuda", "name=gpu")
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "gpu"
    assert "peak GPU memory" in (run / "report.html").read_text()
    peaks = read_json(run / "metrics.json")["peak_mib"]
    assert 0 < peaks["rounds"]["gpu_memory"] <= peaks["total"]["gpu_memory"]
