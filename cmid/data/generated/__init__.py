"""Overhead scenes drawn from a seed, with the labels of every task; `files` describes them on disk."""

from cmid.data.generated.files import OBJECT_CLASSES, make_folders, write_classes, write_index, write_scene
from cmid.data.generated.materials import SEMANTIC_CLASSES
from cmid.data.generated.scene import SCENE_CLASSES, SMALLEST_PX, Box, Scene, class_of, draw_scene

__all__ = [
    "OBJECT_CLASSES",
    "SCENE_CLASSES",
    "SEMANTIC_CLASSES",
    "SMALLEST_PX",
    "Box",
    "Scene",
    "class_of",
    "draw_scene",
    "make_folders",
    "write_classes",
    "write_index",
    "write_scene",
]
