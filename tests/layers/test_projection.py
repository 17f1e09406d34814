"""Heads against the published code's numbers."""

import torch
import torch.nn.functional as F

from cmid.layers.projection import PixelHead, Projector, PrototypeHead


def published_local_head(r, prefix, norm):
    """A head with the weights of the fixture; its layers are 1 x 1 convolutions there, linear here."""
    head = PrototypeHead(16, 20, 8, 24, norm=norm)
    state = {}
    for key, value in r.items():
        if key.startswith(f"{prefix}.") and not key.endswith("weight_g"):
            value = value.squeeze(-1) if value.ndim == 3 else value
            state[key.removeprefix(f"{prefix}.").replace("last_layer.weight_v", "prototypes.weight")] = value
    head.load_state_dict(state)
    return head


def test_local_head_with_batch_norm_equals_the_published_one(reference):
    r = reference("heads")
    x, head = r["x"].transpose(1, 2), published_local_head(r, "sd_bn", "batch")
    torch.testing.assert_close(head.train()(x).transpose(1, 2), r["out_bn_train"], rtol=1e-5, atol=1e-6)
    head = published_local_head(r, "sd_bn", "batch").eval()
    torch.testing.assert_close(head(x).transpose(1, 2), r["out_bn_eval_after"], rtol=1e-5, atol=1e-6)


def test_local_head_without_norm_equals_the_published_one(reference):
    r = reference("heads")
    head = published_local_head(r, "sd_nobn", "layer")
    torch.testing.assert_close(head(r["x"].transpose(1, 2)).transpose(1, 2), r["out_nobn"], rtol=1e-5, atol=1e-6)


def test_projector_equals_the_published_one(reference):
    r = reference("heads")
    head = Projector(16, 20, 8)
    names = {"0.weight": "0.0.weight", "0.bias": "0.0.bias", "2.weight": "0.3.weight", "2.bias": "0.3.bias"}
    head.load_state_dict({ours: r[f"sd_mlp.layer.{theirs}"] for ours, theirs in names.items()})
    torch.testing.assert_close(head(r["mlp_x"]), r["mlp_out"], rtol=1e-5, atol=1e-6)


def test_pixel_head_equals_the_published_one(reference):
    r = reference("mim_head")
    head = PixelHead(8, 3, 32)
    head.load_state_dict({"0.weight": r["weight"], "0.bias": r["bias"]})
    torch.testing.assert_close(head(r["feat"]), r["out"], rtol=1e-5, atol=1e-6)


def test_prototype_scores_are_cosines():
    torch.manual_seed(0)
    head = PrototypeHead(6, 5, 4, 7, norm="layer")
    x = torch.randn(2, 3, 6)
    expected = F.cosine_similarity(head.mlp(x)[..., None, :], head.prototypes.weight, dim=-1)
    torch.testing.assert_close(head(x), expected)


def test_mean_of_painted_rows_is_that_of_all_painted():
    torch.manual_seed(0)
    head = PixelHead(6, 3, 4)
    features, weights = torch.randn(5, 9, 6), torch.rand(2, 5, 9)
    expected = (weights[..., None] * head.of_rows(features)).sum(1)
    torch.testing.assert_close(head.mean_of_rows(features, weights), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head.mean_of_rows(features, weights), expected)
