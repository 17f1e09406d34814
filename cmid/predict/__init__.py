"""A model for windows, and a scene of any size: a georeferenced map, with memory that does not grow with the scene."""
