"""Pure functions on tensors; they know nothing of the rest of the house."""
