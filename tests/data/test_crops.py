import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from cmid.config import ViewConfig
from cmid.data.crops import (
    Crop,
    align_box,
    as_planes,
    central_box,
    cut,
    cut_crops,
    draw_box,
    draw_crop,
    generator_for,
    largest_reduction,
    squash,
)
from cmid.data.decode import Decoded, decode
from tests.data.conftest import picture

DRAWS = 3000


def drawn(width, height, views=None):
    views = views or ViewConfig()
    crops = [draw_crop(generator_for(0, 0, i, 0), width, height, views) for i in range(DRAWS)]
    return np.array([crop.box for crop in crops]), np.array([crop.flipped for crop in crops])


def geometry(boxes, width, height):
    x0, y0, x1, y1 = boxes.T.astype(float)
    w, h = x1 - x0, y1 - y0
    free_x, free_y = w < width, h < height
    return {
        "width": w, "height": h, "area": w * h, "ratio": w / h,
        "x": (x0 / np.maximum(width - w, 1))[free_x], "y": (y0 / np.maximum(height - h, 1))[free_y],
    }  # fmt: skip


def assert_same_distribution(ours, theirs):
    for name in ours:
        if len(ours[name]) == len(theirs[name]) == 0:
            continue  # no crop is free to move along this side
        # both sides are fixed by seeds; 0.001 is the chance that equal distributions look this different
        assert ks_2samp(ours[name], theirs[name]).pvalue > 1e-3, name


def test_distribution_of_the_published_crops(reference):
    numbers = reference("crop")
    h, w, y, x = numbers["params_h_w_hstart_wstart"].T.double().numpy()
    # the starts drawn there are uniform; cutting then loses up to a pixel of each to a truncated product
    y, x = (y * (224 - h)).round(), (x * (224 - w)).round()
    lost = np.stack([y, x], 1) - numbers["true_pixel_origin"].numpy()
    assert lost.min() == 0 and lost.max() == 1
    boxes, flips = drawn(224, 224)
    assert_same_distribution(geometry(boxes, 224, 224), geometry(np.stack([x, y, x + w, y + h], 1), 224, 224))
    assert abs(flips.mean() - 0.5) < 0.025 and abs(flips.mean() - float(numbers["flip_rate"])) < 0.04


@pytest.mark.parametrize(("width", "height"), [(256, 256), (150, 90), (300, 60), (40, 400)])
def test_distribution_of_torchvision(width, height):
    torch.manual_seed(1)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(DRAWS)])
    y, x, h, w = theirs.T
    boxes, _ = drawn(width, height)
    assert_same_distribution(geometry(boxes, width, height), geometry(np.stack([x, y, x + w, y + h], 1), width, height))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (700, 1), (2, 3), (31672, 200)])
def test_boxes_are_inside_and_never_empty(width, height):
    for i in range(200):
        x0, y0, x1, y1 = draw_box(generator_for(0, 0, i, 0), width, height, ViewConfig())
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_central_box_keeps_the_ratio():
    assert central_box(100, 300, (0.75, 4 / 3)) == (0, 83, 100, 216)
    assert central_box(300, 90, (0.75, 4 / 3)) == (90, 0, 210, 90)
    assert central_box(90, 100, (0.75, 4 / 3)) == (0, 0, 90, 100)


def test_a_draw_depends_on_all_of_its_key_and_on_nothing_else():
    views = ViewConfig()
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-1, 0, 0, 0), (2**70, 0, 5, 0)]
    numbers = [draw_crop(generator_for(*key), 1000, 1000, views) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert numbers == [draw_crop(generator_for(*key), 1000, 1000, views) for key in keys]


@pytest.mark.parametrize(("flipped", "turns"), [(False, 0), (True, 0), (False, 1), (True, 3)])
@pytest.mark.parametrize("box", [(3, 5, 41, 35), (0, 0, 48, 40), (10, 10, 11, 12)])
@pytest.mark.parametrize("size", [16, 38, 64])
def test_cut_equals_pillow(box, size, flipped, turns):
    image = picture(0)
    out = torch.empty(3, size, size, dtype=torch.uint8)
    cut(as_planes(np.array(image)), Crop(box, flipped, turns), size, out)
    expected = np.rot90(image.crop(box).resize((size, size), Image.Resampling.BILINEAR), turns)
    expected = expected[:, ::-1] if flipped else expected
    assert np.abs(out.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1  # rounding of 8-bit weights


def test_the_box_is_where_the_pixels_came_from():
    ramp = np.zeros((200, 300, 3), np.uint8)
    ramp[..., 0] = (np.arange(300) * 255 / 299).round()
    ramp[..., 1] = (np.arange(200) * 255 / 199).round()[:, None]
    views = ViewConfig(size=32)
    for i in range(20):
        crop = draw_crop(generator_for(0, 0, i, 0), 300, 200, views)
        out = torch.empty(3, 32, 32, dtype=torch.uint8)
        [cut_as] = cut_crops(Decoded(ramp, 300, 200), [crop], views, [out])
        x0, y0, x1, y1 = cut_as.box
        columns, rows = out[0, 16].float() * 299 / 255, out[1, :, 16].float() * 199 / 255
        expected = x0 - 0.5 + (torch.arange(32) + 0.5) * (x1 - x0) / 32
        inner = slice(1, -1)  # the window of the outermost pixels ends at the box
        assert (columns - (expected.flip(0) if crop.flipped else expected))[inner].abs().max() < 1.5
        assert (rows - (y0 - 0.5 + (torch.arange(32) + 0.5) * (y1 - y0) / 32))[inner].abs().max() < 1.5


def test_the_share_of_turned_crops():
    turns = [draw_crop(generator_for(0, 0, i, 0), 60, 40, ViewConfig(turn=0.3)).turns for i in range(4000)]
    share = np.bincount(turns, minlength=4) / 4000
    np.testing.assert_allclose(share, [0.775, 0.075, 0.075, 0.075], atol=0.017)  # four standard deviations or more


def test_squash_is_bicubic_and_boxes_are_in_squashed_pixels():
    image, views = picture(1, 60, 40), ViewConfig(size=24, squash=True)
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
    assert np.abs(squash(np.array(image), 24).astype(int) - expected).max() <= 1
    crops = [draw_crop(generator_for(0, 0, i, 0), 60, 40, views) for i in range(50)]
    assert max(crop.box[2] for crop in crops) == 24 and max(crop.box[3] for crop in crops) <= 24
    out = torch.empty(3, 24, 24, dtype=torch.uint8)
    cut_crops(Decoded(np.array(image), 60, 40), [Crop((0, 0, 24, 24))], views, [out])
    assert np.abs(out.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_reduction_keeps_twice_the_pixels_needed():
    views = ViewConfig(size=50)
    assert largest_reduction(1000, 1000, [(0, 0, 800, 900)], [50], views) == 8
    assert largest_reduction(1000, 1000, [(0, 0, 800, 900), (0, 0, 399, 500)], [50, 50], views) == 2
    assert largest_reduction(1000, 1000, [(0, 0, 199, 500)], [50], views) == 1
    assert largest_reduction(1000, 850, [(0, 0, 10, 10)], [50], ViewConfig(size=50, squash=True)) == 8


def test_aligned_boxes_are_whole_pixels_of_the_shrunk_image():
    assert align_box((5, 2, 102, 99), 4, 103, 101) == (4, 4, 100, 100)
    for i in range(200):
        box = draw_box(generator_for(0, 0, i, 0), 1003, 901, ViewConfig())
        moved = align_box(box, 8, 1003, 901)
        assert all(edge % 8 == 0 for edge in moved) and max(abs(a - b) for a, b in zip(box, moved, strict=True)) < 8
        assert moved[2] <= 1003 and moved[3] <= 901


def test_shrinking_while_decoding_does_no_harm(tmp_path):
    generator = np.random.default_rng(0)
    grain = Image.fromarray(generator.integers(0, 256, (451, 602, 3), dtype=np.uint8))  # the worst there is
    image = Image.blend(picture(3, 602, 451), grain, 0.2)
    image.save(tmp_path / "a.jpg", quality=92)
    views, crop = ViewConfig(size=64), Crop((37, 22, 561, 443))
    shrunk = decode(
        tmp_path / "a.jpg", lambda width, height: largest_reduction(width, height, [crop.box], [views.size], views)
    )
    assert shrunk.factor == 2
    outs = [torch.empty(3, 64, 64, dtype=torch.uint8) for _ in range(2)]
    moved = cut_crops(shrunk, [crop], views, outs[:1])
    cut_crops(decode(tmp_path / "a.jpg"), moved, views, outs[1:])
    difference = (outs[0].float() - outs[1].float()).abs()
    buffer = io.BytesIO()
    Image.fromarray(outs[1].permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=92)
    recompressed = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    assert difference.mean() < (recompressed.float() - outs[1].float()).abs().mean()
