from types import SimpleNamespace

import numpy as np
import pytest


def stripes(images, seed, size=8, classes=3):
    """Noisy images with a bright row (class 0), column (1) or diagonal (2): learnt within seconds."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images, dtype=np.int64) % classes
    pixels = rng.integers(0, 60, (images, 1, size, size))
    for i, label in enumerate(labels):
        at = rng.integers(1, size - 1)
        if label == 0:
            pixels[i, 0, at, :] = 255
        elif label == 1:
            pixels[i, 0, :, at] = 255
        else:
            pixels[i, 0] += 200 * np.eye(size, dtype=pixels.dtype)
    return SimpleNamespace(images=pixels.clip(0, 255).astype(np.uint8), labels=labels)


def make_dataset(train=48, val=24, test=24, size=8):
    return SimpleNamespace(
        name="stripes",
        class_names=("row", "column", "diagonal"),
        image_shape=(1, size, size),
        provenance={"source": "drawn by the test"},
        train=stripes(train, 1, size),
        val=stripes(val, 2, size) if val else None,
        test=stripes(test, 3, size) if test else None,
    )


@pytest.fixture
def dataset():
    return make_dataset()


@pytest.fixture
def dataset_maker():
    return make_dataset
