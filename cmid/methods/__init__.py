"""One paper, one file. A method is given a backbone and turns views into named loss terms."""
