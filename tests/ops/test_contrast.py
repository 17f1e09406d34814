"""The contrastive loss against the published code's numbers."""

import torch
import torch.nn.functional as F

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


def test_value_and_gradient_are_those_of_cross_entropy_and_the_queue_may_change_before_backward():
    generator = torch.Generator().manual_seed(0)
    queries, keys, queue, one, two = (
        F.normalize(torch.randn(rows, 6, generator=generator, dtype=torch.float64)) for rows in (5, 5, 9, 4, 3)
    )
    ours, theirs = queries.clone().requires_grad_(), queries.clone().requires_grad_()
    written = queue.clone()
    loss = info_nce(ours, keys, written, 0.1, (one, two))
    written.zero_()
    (3 * loss).backward()
    logits = torch.cat(((theirs * keys).sum(1, keepdim=True), theirs @ torch.cat((queue, one, two)).T), 1) / 0.1
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    with torch.no_grad():
        torch.testing.assert_close(info_nce(ours, keys, queue, 0.1, (one, two)), expected)
