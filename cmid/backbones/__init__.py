"""Images (and a mask) to a Pyramid: any timm model that gives feature maps."""

from cmid.backbones.create import backbone_names, create_backbone
from cmid.backbones.timm_backbone import TimmBackbone

__all__ = ["TimmBackbone", "backbone_names", "create_backbone"]
