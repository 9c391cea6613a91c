"""The report of a deployed network beside its ANN: one JSON file, one page that opens anywhere, a few lines of text."""
