"""Action recognition: from recordings of movements to the sequences that a classifier trains on."""
