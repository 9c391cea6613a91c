"""One file format a module; each writes, reads back and verifies."""
