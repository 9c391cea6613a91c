"""Split learning over a network: HTTPS with safetensors bodies. Nothing here is imported before it is used."""
