"""Made images beside the real ones they stand for: how good they are, and whether copies (docs/synthetic.md)."""
