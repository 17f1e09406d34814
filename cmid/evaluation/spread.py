"""Signs of collapse: do different images still get different features?"""

import torch
from torch import Tensor
from torch.nn import functional


def feature_std(features: Tensor) -> float:
    """Standard deviation over images of each dimension of the L2-normalised features `(N, D)`, mean over D.

    1 / sqrt(D) is ideal (directions spread evenly over the sphere, zero mean), 0 is collapse to one direction.
    Features after a ReLU stay below the ideal, having no negative part. Source: SimSiam (arXiv 2011.10566),
    section 4.1.
    """
    return functional.normalize(features.float(), dim=1).std(dim=0, correction=0).mean().item()


def effective_rank(features: Tensor) -> float:
    """Number of directions that features `(N, D)` really use, from 1 (or 0 where all are zero) to min(N, D).

    The exponential of the entropy of the singular values divided by their sum; not centred. Source: Roy and
    Vetterli, The effective rank, EUSIPCO 2007.
    """
    singular = torch.linalg.svdvals(features.double())
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular / total
    return torch.special.entr(share).sum().exp().item()
