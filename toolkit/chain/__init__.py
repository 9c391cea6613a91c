"""The chain: from images to a verified, spike-encoded network, step by step, with a manifest of hashes.

Import from the modules; none of them needs torch. Each step is a command of ours in a process of its own.
"""
