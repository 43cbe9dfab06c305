"""Augmentation: what it may change, what it must not, and what it refuses."""

from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pseudokit.config.types import Augmentation, UserError
from pseudokit.data.transforms import (
    MAX_SMALL_SIDE,
    PRESETS,
    batch_affine,
    build,
    compose,
    is_whole_batch,
    resolve,
)


def digits(n=8, size=16, channels=1) -> torch.Tensor:
    """(n, size, size, channels) uint8."""
    images = torch.from_numpy((load_digits().images[:n] * 15.9).astype(np.uint8))
    images = images.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
    return images[..., None].repeat(1, 1, 1, channels).contiguous()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
def test_affine_keeps_shape_and_range_and_changes_the_image(channels):
    batch = digits(channels=channels)
    out = batch_affine(batch, generator())
    assert out.shape == batch.shape
    assert out.min() >= 0
    assert out.max() <= 255
    assert (out - batch).abs().mean() > 5
    # a digit stays a digit: about as much ink as before
    np.testing.assert_allclose(out.mean((1, 2, 3)), batch.float().mean((1, 2, 3)), rtol=0.35)


def test_affine_treats_each_image_on_its_own():
    twins = digits(1).repeat(6, 1, 1, 1)
    out = batch_affine(twins, generator())
    for i in range(5):
        assert not torch.equal(out[i], out[i + 1])


def test_affine_without_any_bound_is_the_identity():
    batch = digits()
    out = batch_affine(batch, generator(), degrees=0, shift=0, scale=0, shear=0)
    np.testing.assert_allclose(out, batch, atol=0.01)


def test_affine_shifts_by_at_most_the_share_of_the_side():
    dot = torch.zeros(64, 40, 40, 1, dtype=torch.uint8)
    dot[:, 19:21, 19:21] = 255
    out = batch_affine(dot, generator(), degrees=0, shift=0.1, scale=0, shear=0)[..., 0]
    at = torch.arange(40).float() + 0.5
    for axis in (1, 2):
        center = (out.sum(3 - axis) * at).sum(1) / out.sum((1, 2))
        moved = (center - 20).abs().max()
        assert 3 < moved <= 4.1, "a tenth of 40 pixels, and nearly used up"


def test_warp_bends_smoothly_and_leaves_the_mean_place():
    """Displacements of neighboring pixels are alike, those of far ones are not; none is large."""
    ramp = torch.arange(40.0).view(1, 1, 40, 1).expand(64, 40, 40, 1) * 6
    out = batch_affine(
        ramp.to(torch.uint8), generator(), degrees=0, shift=0, scale=0, shear=0, warp=0.06
    )[..., 0]
    moved = ((out - ramp[..., 0]) / 6)[:, 4:-4, 4:-4]  # in pixels
    assert 0.5 < moved.std() < 2.5, "0.06 half sides are 1.2 pixels"
    assert moved.mean().abs() < 0.2
    assert (moved[:, 1:] - moved[:, :-1]).abs().max() < 1, "smooth"


def test_strokes_become_thicker_or_thinner_by_at_most_a_pixel_on_either_side():
    """A bar of four columns and its negative: as often wider as narrower, everything else stays."""
    batch = torch.zeros(400, 12, 12, 1, dtype=torch.uint8)
    batch[:, :, 4:8] = 200
    still = {"degrees": 0, "shift": 0, "scale": 0, "shear": 0}
    out = batch_affine(batch, generator(), **still, stroke=1.0)
    width = out[:, 5, :, 0].sum(1) / 200
    assert 2 <= width.min() < 2.2
    assert 5.8 < width.max() <= 6
    assert abs((width > 4).float().mean() - 0.5) < 0.1
    dark = batch_affine(200 - batch, generator(), **still, stroke=1.0)
    assert dark[:, 5, 0].allclose(torch.tensor(200.0)), "far from the bar nothing changes"
    assert out[:, 5, 0].eq(0).all()


def test_cutout_blanks_one_square_of_its_size_and_touches_nothing_else():
    batch = torch.full((50, 20, 20, 1), 200, dtype=torch.uint8)
    out = batch_affine(batch, generator(), degrees=0, shift=0, scale=0, shear=0, cutout=0.3)[..., 0]
    holes = (out == 0).sum((1, 2))
    assert holes.max() in (36, 49), "a third of 20 pixels, or cut by the border"
    assert holes.min() > 0
    assert torch.isclose(out[out > 0], torch.tensor(200.0)).all()
    assert len({tuple(torch.nonzero(image == 0)[0].tolist()) for image in out}) > 20, "anywhere"


@pytest.mark.parametrize(
    "spec",
    [
        "gentle",
        "affine",
        "elastic",
        "written",
        "cutout",
        "strong",
        "small",
        "photo",
        [{"HorizontalFlip": {"p": 0.5}}],
    ],
)
def test_the_seed_alone_decides(spec):
    batch = digits()

    def views(seed):
        augment = build(spec, 16, seed)
        return torch.stack([augment(batch, 0).float(), augment(batch, 1).float()])

    first, again, other = views(1), views(1), views(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1]), "every batch is a new draw"


@pytest.mark.parametrize("spec", ["written", "strong", "photo"])
def test_a_draw_depends_on_its_number_and_not_on_those_before(spec):
    straight, jumped = build(spec, 16, seed=1), build(spec, 16, seed=1)
    for number in range(3):
        drawn = straight(digits(), number)
    assert torch.equal(drawn, jumped(digits(), 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("preset", "size"),
    [*[(p, 32) for p in ("affine", "elastic", "small", "photo")], ("strong", 32), ("strong", 80)],
)
def test_every_preset_keeps_the_format(preset, size, channels):
    batch = digits(4, size, channels)
    augment = build(preset, size, seed=0)
    for number in range(8):  # every transform comes up
        out = augment(batch, number)
        assert out.shape == batch.shape
        assert 0 <= out.min() <= out.max() <= 255


def test_auto_is_affine_for_small_images_and_photo_for_larger():
    for size in (16, MAX_SMALL_SIDE):
        assert resolve("auto", size) == resolve("affine", size)
        assert is_whole_batch("auto", size)
    large = MAX_SMALL_SIDE + 1
    assert resolve("auto", large) == resolve("photo", large)
    for name in ("auto", "gentle", "strong"):
        assert not is_whole_batch(name, large), "albumentations"
    assert is_whole_batch("affine", large)
    assert is_whole_batch("none", large), "nothing to do image by image"
    assert resolve([{"HorizontalFlip": {}}], 16) == [{"HorizontalFlip": {}}]
    auto, affine = build("auto", 16, seed=5)(digits(), 0), build("affine", 16, seed=5)(digits(), 0)
    assert torch.equal(auto, affine)


@pytest.mark.parametrize("size", [16, MAX_SMALL_SIDE + 1])
def test_every_name_of_the_config_has_a_preset(size):
    names = get_args(get_args(Augmentation)[0])
    assert set(PRESETS["small"]) == set(names)
    for name in names:
        augment = build(name, size, seed=0)
        assert (augment is None) == (name == "none")


def test_none_is_no_augmentation():
    assert build("none", 16, seed=0) is None


def test_size_stands_for_the_side_of_the_images():
    augment = build(
        [{"Resize": {"height": 24, "width": 24}}, {"RandomResizedCrop": {"size": "size"}}],
        16,
        seed=0,
    )
    assert augment(digits(3), 0).shape == (3, 16, 16, 1)


def test_the_list_is_applied_in_its_order_with_its_arguments():
    flip = build(
        [{"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 0}}, {"InvertImg": {"p": 1.0}}],
        16,
        seed=0,
    )
    assert torch.equal(flip(digits(), 0), 255 - digits().flip(2))


@pytest.mark.parametrize(
    ("name", "meant"), [("HorizontalFlp", "HorizontalFlip"), ("Afine", "Affine")]
)
def test_an_unknown_transform_names_the_nearest(name, meant):
    with pytest.raises(UserError, match=rf"train\.augment.*'{name}'.*{meant}"):
        compose([{name: {"p": 0.5}}], 16)


def test_what_albumentations_has_but_is_no_transform_is_refused_without_naming_itself():
    with pytest.raises(UserError, match=r"train\.augment.*'Compose'") as caught:
        compose([{"Compose": {}}], 16)
    assert str(caught.value).count("Compose") == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"Affine": {"rotat": 10}},
        {"Affine": {"p": "often"}},
        {"Affine": {"rotate": "much"}},
        {"Affine": 3},
        {"Affine": [1, 2]},
        {"HorizontalFlip": {}, "Affine": {}},
        {},
        {"RandomResizedCrop": {}},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_in_one_line(entry):
    with pytest.raises(UserError, match=r"train\.augment") as caught:
        compose([entry], 16)
    assert "\n" not in str(caught.value)
    assert next(iter(entry), "{}") in str(caught.value)
