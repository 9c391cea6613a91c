"""``gascnn data join``."""

from __future__ import annotations

import json

import numpy as np

from gascnn.toolkit.data.image_set import IMAGES_FILE, save_image_set
from gascnn.toolkit.files import sha256_file


def test_what_was_joined_is_shown_and_written(gascnn, tmp_path):
    sets = [tmp_path / "gan", tmp_path / "own"]
    for path, count in zip(sets, (6, 3), strict=True):
        images = np.full((count, 1, 4, 4), count, dtype=np.uint8)
        save_image_set(path, images, np.arange(count) % 2, ("well", "ill"), source="test")
    found = gascnn("data", "join", *sets, "-o", tmp_path / "both", "--json", tmp_path / "j.json")
    assert found.status == 0, found.err
    result = json.loads((tmp_path / "j.json").read_text())
    assert (result["images"], [part["images"] for part in result["parts"]]) == (9, [6, 3])
    assert result["sha256"] == sha256_file(tmp_path / "both" / IMAGES_FILE)
    found = gascnn("data", "join", sets[0], "-o", tmp_path / "one")
    assert (found.status, found.error) == (2, "1 image set; give two or more to join")
