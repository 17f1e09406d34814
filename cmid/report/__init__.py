"""Plain arrays in, one self-contained HTML page out: what a run learned, for a person to look at."""
