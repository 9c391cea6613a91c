"""What runs an exported network: the bit-exact simulator and the real Lava."""
