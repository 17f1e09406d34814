"""MAE against lightly's parts and its formula, and what the encoder may not see."""

import pytest
import timm
import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from timm.layers import build_sincos2d_pos_embed

from cmid.backbones import create_backbone
from cmid.commands.learners import build_learner
from cmid.config import MAEConfig, PretrainConfig, ViewConfig
from cmid.contracts import Views
from cmid.errors import UsageError
from cmid.methods.mae import MAE
from tests.methods.rivals import batch, learner


def hide(images, grid=(4, 4)):
    """All but 4 patches, other ones in each image."""
    mask = torch.ones(len(images), *grid, dtype=torch.bool)
    for i, row in enumerate(mask.flatten(1)):
        row[[(3 * i + step) % len(row) for step in (0, 5, 6, 11)]] = False
    return mask


def theirs(model, mask):
    """The same weights in lightly's encoder and decoder, and which tokens stay or go; the class token is the first."""
    encoder = MaskedVisionTransformerTIMM(
        timm.create_model("test_vit", num_classes=0, img_size=64),
        weight_initialization="skip",
        pos_embed_initialization="skip",
    )
    encoder.vit.load_state_dict(model.backbone.weights())
    decoder = MaskedVisionTransformerDecoderTIMM(num_patches=16, embed_dim=32, depth=2, num_heads=4)
    decoder.blocks.load_state_dict(model.decoder_blocks.state_dict())
    decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    decoder.mask_token.data.copy_(model.mask_token.data)
    decoder.pos_embed.data[0, 1:] = build_sincos2d_pos_embed([4, 4], 32)
    flat = mask.flatten(1)
    stay = torch.stack([torch.cat((torch.zeros(1, dtype=torch.int64), (~row).nonzero()[:, 0] + 1)) for row in flat])
    go = torch.stack([row.nonzero()[:, 0] + 1 for row in flat])
    return encoder, decoder, stay, go


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_and_gradient_are_those_of_lightlys_parts(normalise):
    model, views = learner("mae"), batch("mae", seed=4)
    model.config.normalise_pixels = normalise
    images = views[0].images
    mask = hide(images)
    model.draw_mask = lambda images: mask
    found = model(views)["reconstruction"]
    found.backward()

    encoder, decoder, stay, go = theirs(model, mask)
    latent = torch.nn.functional.linear(
        encoder.encode(images, idx_keep=stay), model.decoder_embed.weight.detach(), model.decoder_embed.bias.detach()
    )
    tokens = utils.repeat_token(decoder.mask_token, (4, 17))
    tokens = utils.set_at_index(tokens, stay, latent)
    decoded = utils.get_at_index(decoder(tokens), go)
    prediction = torch.nn.functional.linear(
        decoded, model.decoder_pred.weight.detach(), model.decoder_pred.bias.detach()
    )
    # lightly has the bands of a pixel side by side, pixel_unshuffle the pixels of a band
    prediction = prediction.view(4, 12, 3, 256).transpose(2, 3).flatten(2)
    target = utils.get_at_index(utils.patchify(images, 16), go - 1)
    if normalise:
        target = utils.normalize_mean_var(target, dim=-1)
    expected = torch.nn.functional.mse_loss(prediction, target)
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-5, atol=1e-6)

    expected.backward()
    for ours, other in (
        (model.backbone.model.patch_embed.proj.weight, encoder.vit.patch_embed.proj.weight),
        (model.backbone.model.blocks[0].attn.qkv.weight, encoder.vit.blocks[0].attn.qkv.weight),
        (model.decoder_blocks[0].mlp.fc1.weight, decoder.blocks[0].mlp.fc1.weight),
        (model.mask_token, decoder.mask_token),
    ):
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_hidden_patches_of_pixels_normalised_by_patch():
    model, images = learner("mae"), batch("mae", seed=5)[0].images * 3 + 1
    mask = hide(images)
    prediction = torch.randn(4, 12, 3 * 16 * 16)
    found = model._mse(prediction, images, mask)
    total = 0.0
    for number, (i, row, column) in enumerate(mask.nonzero().tolist()):  # image by image, row by row
        patch = images[i, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
        total = total + (prediction[i, number % 12].view(3, 16, 16) - target).square().mean()
    torch.testing.assert_close(found, total / (4 * 12), rtol=1e-5, atol=1e-6)


def test_hidden_patches_have_no_part_in_the_prediction():
    model, images = learner("mae").eval(), batch("mae", seed=6)[0].images
    mask = hide(images)
    pixels = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    with torch.no_grad():
        seen = model.predict(images, mask)
        other = torch.where(pixels, torch.randn_like(images), images)
        torch.testing.assert_close(model.predict(other, mask), seen)
        shown = torch.where(pixels, images, torch.randn_like(images))
        assert (model.predict(shown, mask) - seen).abs().max() > 1e-3


def test_the_encoder_computes_a_quarter():
    model, lengths = learner("mae"), []
    model.backbone.model.blocks[0].register_forward_hook(lambda m, args, out: lengths.append(out.shape[1]))
    model(batch("mae"))
    assert lengths == [1 + 4]


@pytest.mark.parametrize("grid", [(4, 4), (6, 3)])
def test_every_patch_comes_back_to_its_place(grid):
    """With a decoder that does nothing, what stands at a position is what was seen there, or the mask token."""
    model = learner("mae").eval()
    images = torch.randn(4, 3, 16 * grid[0], 16 * grid[1], generator=torch.Generator().manual_seed(7))
    mask = hide(images, grid)
    model.config.mask_ratio = 1 - 4 / (grid[0] * grid[1])
    model.decoder_blocks, model.decoder_norm = torch.nn.Identity(), torch.nn.Identity()
    model.decoder_pred, given = torch.nn.Identity(), []
    model.decoder_blocks.register_forward_hook(lambda module, args, out: given.append(args[0]))
    with torch.no_grad():
        painted = model.predict(images, mask)
        found = given[0][:, 1:] - build_sincos2d_pos_embed(list(grid), 32)
        keep = torch.stack([(~row).nonzero()[:, 0] for row in mask.flatten(1)])
        seen = model.decoder_embed(model.backbone.visible_tokens(images, keep))[:, 1:]
        for i in range(4):
            torch.testing.assert_close(found[i, keep[i]], seen[i], rtol=1e-4, atol=1e-5)
            hidden = found[i, mask[i].flatten()]
            torch.testing.assert_close(hidden, model.mask_token[0].expand(len(hidden), -1), rtol=1e-4, atol=1e-5)
            assert torch.equal(painted[i], given[0][i, 1:][mask[i].flatten()]), "these alone are painted"


def test_positions_are_fixed_and_the_start_is_the_published_one():
    model = learner("mae")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(dict(model.named_parameters())) - trained == {"backbone.model.pos_embed"}
    weight = model.backbone.model.patch_embed.proj.weight
    bound = (6 / (64 + 3 * 16 * 16)) ** 0.5  # Xavier's, as of a linear layer
    assert 0.99 * bound < weight.abs().max() <= bound
    assert 0.01 < model.backbone.model.cls_token.std() < 0.03
    assert (model.decoder_embed.bias == 0).all()


def test_other_sizes_of_crops_and_other_bands():
    torch.manual_seed(0)
    backbone = create_backbone("test_vit", 5, mask_stage=None, img_size=64)
    model = MAE(backbone, MAEConfig(decoder_width=32, decoder_depth=1, decoder_heads=4))
    images = torch.randn(2, 5, 96, 48)
    assert model.predict(images, model.draw_mask(images)).shape == (2, 14, 5 * 16 * 16)
    assert backbone(images).last.shape == (2, 64, 6, 3)


def test_what_it_shows():
    model, views = learner("mae").eval(), batch("byol", seed=8)
    seen = model.look(Views(views.crops, views.indices))
    assert [len(part) for part in (seen.masks, seen.masked, seen.predictions)] == [1, 1, 1]
    images, pixels = views[0].images, seen.masks[0].repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    shown = pixels.expand_as(images)
    torch.testing.assert_close(seen.predictions[0][~shown], images[~shown])
    assert not torch.allclose(seen.predictions[0][shown], images[shown])

    # a perfect prediction would paint the image
    def perfect(images, mask):
        values, mean, deviation = model._patches(images, model._hidden(model._order(mask)))
        return (values - mean) / deviation

    model.predict = perfect
    torch.testing.assert_close(model.look(views).predictions[0], images, rtol=1e-4, atol=1e-4)


def test_backbones_without_patches_are_refused_in_words():
    with pytest.raises(
        UsageError, match=r"needs a plain ViT .* resnet50 is none\. .* or take --method simmim, which takes most others"
    ):
        build_learner(PretrainConfig(method="mae", backbone="resnet50"))


def test_masks_that_leave_nothing_are_refused():
    config = PretrainConfig(method="mae", backbone="test_vit", views=ViewConfig(size=32), mae=MAEConfig(mask_ratio=0.9))
    with pytest.raises(UsageError, match=r"mae\.mask_ratio 0\.9 leaves none of 4 patches of 16 px"):
        build_learner(config)


def test_a_decoder_whose_heads_do_not_divide_it_is_refused():
    config = PretrainConfig(method="mae", backbone="test_vit", views=ViewConfig(size=64))
    config.mae = MAEConfig(decoder_width=30)
    with pytest.raises(UsageError, match="multiple of 4"):
        build_learner(config)
