"""What only a GPU can show: `make gpu-check`. Elsewhere every check is skipped by name; `make test` leaves them out."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Model, Train
from pseudokit.system.files import read_json
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import Computation, Division, pick_amp_dtype
from pseudokit.training.linear_probe import fit_head
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model, with_head
from pseudokit.training.optimizer import make_optimizer
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
    "clip": {"clip_grad": 1.0, "amp_dtype": "fp16"},
    "accumulate": {"accumulate": 4, "consistency_weight": 1.0},
    "compile": {"compile": True, "consistency_weight": 1.0},
}
DEVICE = "cuda"


def learned(precision: str, steps=150, division=None, model="test_resnet", **options):
    """The model after so many steps; after the default number it has learned."""
    torch.manual_seed(0)
    network, form = create_model(Model(name=model), tuple("0123456789"), 32, 1)
    train = Train(**{"device": DEVICE, "amp_dtype": precision} | options)
    training_set = TrainingSet(PIXELS, ROWS[:1200], LABELS[:1200], steps, 0, unlabeled=ROWS[1200:])
    if train.linear_probe_first:
        embeddings = embed(network, form, PIXELS, ROWS[:1200], train)
        head, _ = fit_head(embeddings, LABELS[:1200], 10, False, LABELS[:1200])
        network = with_head(network, head.state_dict())
    network, history = train_model(network, form, training_set, train, division=division)
    if steps == 150:
        assert history.loss.iloc[-1] < max(0.5 * history.loss.iloc[0], 0.1)
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
    on_gpu = predicted(learned("auto", **PARTS[part]), DEVICE, "auto")
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


def test_parts_of_a_batch_teach_what_the_batch_teaches():
    """No batch norms; sums of fp32 in another order."""
    options = {"model": "test_convnext", "optimizer": "sgd", "consistency_weight": 1.0}
    whole, parts = (learned("fp32", steps=5, accumulate=n, **options).network for n in (1, 3))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_batch_that_does_not_fit_into_the_memory_is_divided():
    """Training and prediction get a third of the memory that they would take."""
    division, options = Division(), {"batch_size": 8192, "augment": "none"}
    rows = ROWS.repeat(20)
    model = learned("fp32", steps=2, **options)
    torch.cuda.reset_peak_memory_stats()
    learned("fp32", steps=2, **options)
    in_training = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    at_once = log_probs(model, PIXELS, rows, device=DEVICE)
    in_prediction = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(in_training / 3 / total)
        learned("fp32", steps=2, division=division, **options)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(in_prediction / 3 / total)
        in_parts = log_probs(model, PIXELS, rows, device=DEVICE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert division.n_parts > 1
    np.testing.assert_allclose(in_parts, at_once, atol=1e-2)


@pytest.mark.parametrize("part", ["average", "mix", "consistency_weight", "accumulate"])
def test_a_step_waits_for_the_device_once(part):
    """When loss and norm are read: nothing else stops the host from running ahead."""

    def waits(steps: int) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                learned("bf16", steps=steps, augment="affine", **PARTS[part])
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in caught)

    waits(2)
    assert waits(30) - waits(10) <= 20


def test_images_and_weights_are_in_channels_last():
    network, form = create_model(Model(), tuple("0123456789"), 32, 3)
    network.to(DEVICE)
    images = Computation(network, form, DEVICE, "fp32").run(
        torch.nn.Identity(), torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
    )
    convolutions = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    for tensor in (images, *convolutions):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_default_optimizer_is_fused():
    network, _ = create_model(Model(), tuple("0123456789"), 32, 1)
    optimizer = make_optimizer(network.to(DEVICE), Train())
    assert all(group["fused"] for group in optimizer.param_groups)


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
