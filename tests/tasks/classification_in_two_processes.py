"""Run by torchrun in two processes: a classifier with class weights on half a batch each equals one on all of it."""

import torch
import torch.distributed as dist

from cmid.backbones import create_backbone
from cmid.tasks.classification import Classifier

WEIGHTS = torch.tensor([1.0, 10.0, 3.0])


def main():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    hard = torch.tensor([0, 0, 0, 1, 1, 1, 2, 1])  # the halves weigh unlike
    mixed = torch.softmax(torch.randn(8, 3, generator=torch.Generator().manual_seed(2)), 1)
    backbone = create_backbone("test_resnet", mask_stage=None)
    kinds = [(labels, smoothing) for labels in (hard, mixed) for smoothing in (0.0, 0.1)]
    tasks = [Classifier(backbone, 3, class_weights=WEIGHTS, smoothing=smoothing) for _, smoothing in kinds]
    whole = []
    for task, (labels, _) in zip(tasks, kinds, strict=True):
        scores = logits.clone().requires_grad_()
        loss = task.loss(scores, labels)
        loss.backward()
        whole.append((loss.detach(), scores.grad))
    dist.init_process_group("gloo")
    rows = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    for task, (labels, _), (loss, gradient) in zip(tasks, kinds, whole, strict=True):
        scores = logits[rows].clone().requires_grad_()
        own = task.loss(scores, labels[rows])
        own.backward()
        mean = own.detach().clone()
        dist.all_reduce(mean)
        torch.testing.assert_close(mean / 2, loss)
        torch.testing.assert_close(scores.grad / 2, gradient[rows])  # DDP takes the mean
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
