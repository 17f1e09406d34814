"""What a backbone is fine-tuned for: a head, its loss, its measure."""
