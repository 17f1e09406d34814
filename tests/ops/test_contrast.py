"""The contrastive loss against the published code's numbers."""

import torch

from cmid.ops.contrast import info_nce


def test_info_nce_equals_the_published_code(reference):
    r = reference("moco_loss")
    query = r["query"].requires_grad_()
    loss = info_nce(query, r["key"], r["queue"].T, 0.2)
    loss.backward()
    torch.testing.assert_close(loss, r["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(query.grad, r["grad_query"], rtol=1e-4, atol=1e-7)
    across = info_nce(query, r["key"], r["queue_norm_dim1"].T, 0.2)
    torch.testing.assert_close(across, r["loss_queue_norm_dim1"], rtol=1e-5, atol=0)
