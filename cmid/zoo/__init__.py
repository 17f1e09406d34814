"""Names and files to weights to backbones, and back to files."""

from cmid.zoo.backbone_files import BackboneMetadata, load_backbone, read_metadata, save_backbone

__all__ = ["BackboneMetadata", "load_backbone", "read_metadata", "save_backbone"]
