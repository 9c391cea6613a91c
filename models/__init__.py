"""Torch modules only: networks as they are trained, and spiking networks in floating point."""
