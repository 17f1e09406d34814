"""From unlabelled overhead imagery to maps."""
