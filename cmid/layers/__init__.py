"""Parts with weights that several rooms share."""
