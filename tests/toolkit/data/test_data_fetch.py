import gzip
import hashlib
import io
import json
import struct
import threading
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gascnn.toolkit.data import building, download, fetch, fetching, load_dataset, sources
from gascnn.toolkit.data.named import MNIST_FILES, NAMED
from gascnn.toolkit.data.sources import load_sources, read_split_list
from gascnn.toolkit.errors import DataError, UsageError

FOLDERS = {"pituitary": "0", "meningioma": "1", "glioma": "2"}
LIST = [
    ("figshare", "7", "glioma", "train"),
    ("figshare", "10", "meningioma", "val"),
    ("sartaj", "Training/no_tumor/image (1).jpg", "notumor", "train"),
    ("figshare", "3", "pituitary", "test"),
    ("navoneel", "no/1 no.jpeg", "notumor", "test"),
]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(download, "ATTEMPTS", 1)


def picture(seed, form="JPEG", size=(200, 160)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 20, size[0] // 20), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, form)
    return buffer.getvalue()


def packed(members, top="Repository-0123abc"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{top}/", b"")
        archive.writestr(f"{top}/README.md", b"more than is needed")
        for name, content in members.items():
            archive.writestr(f"{top}/{name}", content)
    return buffer.getvalue()


def boxed(content, size):
    """Reference: gray, then the mean over the box each small pixel covers, by Pillow."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L").resize((size, size), Image.Resampling.BOX))


def together(contents):
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


@pytest.fixture
def small_sources(tmp_path, monkeypatch):
    """A manifest and a split list of five small images; returns the manifest, to be changed, and their content."""
    content = {entry[:2]: picture(index) for index, entry in enumerate(LIST)}
    values = json.loads(sources.SOURCES_FILE.read_text(encoding="utf-8"))
    build = values["datasets"]["brain-mri"]["build"]
    for source in ("figshare", "sartaj", "navoneel"):
        build["files_sha256"][source] = together(content[entry[:2]] for entry in LIST if entry[0] == source)
    images = np.stack([boxed(content[entry[:2]], 128) for entry in LIST])
    build["images_sha256"] = hashlib.sha256(images.tobytes()).hexdigest()
    split_file = tmp_path / "split.csv"
    rows = ["source,id,class,split", *(",".join(entry) for entry in LIST)]
    split_file.write_text("\n".join(rows) + "\n")
    manifest = tmp_path / "sources.json"

    def install():
        manifest.write_text(json.dumps(values))
        load_sources.cache_clear()

    original = load_sources.__wrapped__
    monkeypatch.setattr(sources, "load_sources", lambda: original(manifest))
    monkeypatch.setattr(fetching, "read_split_list", lambda: read_split_list(split_file))
    install()
    return values["datasets"], content, install


def serve_brain(origin, content):
    members = {"figshare": {}, "sartaj": {}, "navoneel": {}}
    for source, identifier, class_name, _ in LIST:
        name = (
            f"dataset-brain-tumor/categorized/{FOLDERS[class_name]}/{identifier}.jpg"
            if source == "figshare"
            else identifier
        )
        members[source][name] = content[source, identifier]
    for source, files in members.items():
        origin.files[f"{source}.zip"] = packed(files, top=f"Top-{source}")


def test_the_combined_set_is_built_by_the_list(origin, tmp_path, small_sources):
    _, content, _ = small_sources
    serve_brain(origin, content)
    root = tmp_path / "data"
    target = fetch("brain-mri", data_dir=root, base_url=origin.url + "/")
    assert target == root / "brain_mri_combined.npz"
    with np.load(target, allow_pickle=False) as built:
        assert sorted(built.files) == ["class_names", "images", "labels", "source", "split"]
        for index, entry in enumerate(LIST):
            np.testing.assert_array_equal(built["images"][index], boxed(content[entry[:2]], 128))
        assert built["labels"].tolist() == [0, 1, 3, 2, 3]
        assert built["labels"].dtype == np.uint8
        assert built["split"].tolist() == ["train", "val", "train", "test", "test"]
        assert built["source"].tolist() == [f"{source}:{identifier}" for source, identifier, _, _ in LIST]
        assert built["class_names"].tolist() == ["glioma", "meningioma", "pituitary", "notumor"]
    note = json.loads(target.with_suffix(".json").read_text())
    assert note["as_expected"] is True
    assert note["built_from"]["sartaj.zip"] == hashlib.sha256(origin.files["sartaj.zip"]).hexdigest()
    asked = len(origin.requests)
    assert fetch("brain-mri", data_dir=root, base_url=origin.url) == target
    assert len(origin.requests) == asked


def test_progress_goes_from_nothing_to_all(origin, tmp_path, small_sources):
    serve_brain(origin, small_sources[1])
    steps = []
    fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url, progress=steps.append)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.5
    assert fractions[-1] == 1
    files = ["figshare.zip", "sartaj.zip", "navoneel.zip", "brain_mri_combined.npz"]
    assert list(dict.fromkeys(step.file for step in steps)) == files
    assert (steps[-1].done, steps[-1].total) == (5, 5)
    assert steps[0].total == len(origin.files["figshare.zip"])


def test_what_was_fetched_is_found(origin, tmp_path, small_sources):
    serve_brain(origin, small_sources[1])
    fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url)
    data = load_dataset("brain-mri", data_dir=tmp_path / "data")
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [2, 1, 2]
    assert data.provenance["images_as_published"] is True


def test_other_pixels_from_the_same_files_are_stated(origin, tmp_path, small_sources):
    datasets, content, install = small_sources
    datasets["brain-mri"]["build"]["images_sha256"] = "0" * 64
    install()
    serve_brain(origin, content)
    target = fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url)
    assert json.loads(target.with_suffix(".json").read_text())["as_expected"] is False
    assert load_dataset("brain-mri", data_dir=tmp_path / "data").provenance["images_as_published"] is False


def test_a_changed_image_stops_the_build(origin, tmp_path, small_sources):
    _, content, _ = small_sources
    content["figshare", "10"] = picture(99)
    serve_brain(origin, content)
    with pytest.raises(DataError, match="the images of figshare are not those of the list"):
        fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["downloads"]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda served: served.update({"sartaj.zip": packed({})}),
            "no Training/no_tumor.* in it; the origin has changed",
        ),
        (lambda served: served.update({"sartaj.zip": b"no zip"}), r"sartaj\.zip: not a readable zip file"),
        (
            lambda served: served.update({"sartaj.zip": packed({LIST[2][1]: b"no picture"})}),
            r"sartaj:Training/no_tumor/image \(1\)\.jpg: unreadable as an image",
        ),
        (
            lambda served: served.update({"sartaj.zip": served["sartaj.zip"].replace(b"\xff\xd8\xff", b"\0\0\0")}),
            "is damaged; delete the archive",
        ),
    ],
)
def test_an_archive_that_is_not_what_it_should_be(origin, tmp_path, small_sources, spoil, match):
    serve_brain(origin, small_sources[1])
    spoil(origin.files)
    with pytest.raises(DataError, match=match):
        fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url)
    assert not (tmp_path / "data" / "brain_mri_combined.npz").exists()


def test_a_bomb_in_an_archive_is_refused(origin, tmp_path, small_sources, monkeypatch):
    serve_brain(origin, small_sources[1])
    monkeypatch.setattr(building, "_MAX_MEMBER_BYTES", 100)
    with pytest.raises(DataError, match=r"figshare\.zip: .*7\.jpg unpacks to \d+ bytes"):
        fetch("brain-mri", data_dir=tmp_path / "data", base_url=origin.url)


def test_mias_is_built_from_its_films_and_table(origin, tmp_path, small_sources):
    datasets, _, install = small_sources
    table = b"Name,Background Tissue,Abnormality,Type,x,y,r\nmdb002,G,CIRC,B,5,4,1\nmdb001,D,NORM,,,,\n"
    table += b"mdb003,F,MISC,B,2,9,2\nmdb003,F,CALC,M,3,5,2\n"
    films = {f"mdb{film:03d}": picture(film, "PPM", (512, 512)) for film in (1, 2, 3)}
    members = {f"data/pgm/{name}.pgm": content for name, content in films.items()}
    origin.files["mias.zip"] = packed({"data/labels_converted.csv": table, **members})
    datasets["mias"]["build"]["files_sha256"]["mias"] = together([table, *films.values()])
    install()
    target = fetch("mias", data_dir=tmp_path / "data", base_url=origin.url)
    with np.load(target, allow_pickle=False) as built:
        assert built["ref"].tolist() == ["mdb001", "mdb002", "mdb003"]
        # the gravest of two findings is the label, the first the abnormality
        assert built["labels"].tolist() == [0, 1, 2]
        assert built["abnormality"].tolist() == ["NORM", "CIRC", "MISC"]
        assert built["tissue"].tolist() == ["D", "G", "F"]
        assert built["class_names"].tolist() == ["normal", "benign", "malignant"]
        for image, content in zip(built["images"], films.values(), strict=True):
            np.testing.assert_array_equal(image, boxed(content, 256))


def test_a_table_of_another_form_stops_the_build(origin, tmp_path, small_sources):
    origin.files["mias.zip"] = packed({"data/labels_converted.csv": b"Name\nmdb001,G,CIRC,X\n"})
    with pytest.raises(DataError, match="the table of labels has another form"):
        fetch("mias", data_dir=tmp_path / "data", base_url=origin.url)


def serve_mnist(origin, datasets, install):
    for entry, shape in zip(datasets["mnist"]["files"], ((5001, 28, 28), (5001,), (3, 28, 28), (3,)), strict=True):
        array = np.zeros(shape, np.uint8)
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        content = gzip.compress(header + array.tobytes(), mtime=0)
        origin.files[entry["name"]] = content
        entry["sha256"], entry["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
    install()


def test_mnist_is_fetched_as_published_and_found(origin, tmp_path, small_sources):
    datasets, _, install = small_sources
    serve_mnist(origin, datasets, install)
    assert fetch("mnist", data_dir=tmp_path / "data", base_url=origin.url) == tmp_path / "data" / "mnist"
    assert sorted(path.name for path in (tmp_path / "data" / "mnist").iterdir()) == sorted(MNIST_FILES)
    assert len(load_dataset("mnist", data_dir=tmp_path / "data").test) == 3


def test_two_at_once_fetch_it_once(origin, tmp_path, small_sources):
    datasets, _, install = small_sources
    serve_mnist(origin, datasets, install)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch("mnist", data_dir=tmp_path / "d", base_url=origin.url)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [tmp_path / "d" / "mnist"] * 4
    assert Counter(name for name, _ in origin.requests) == dict.fromkeys(MNIST_FILES, 1)


def test_names_that_cannot_be_fetched(tmp_path):
    with pytest.raises(UsageError, match="digits comes with scikit-learn; there is nothing to fetch"):
        fetch("digits", data_dir=tmp_path)
    with pytest.raises(DataError, match="'cifar': no such data set; the names are digits, mnist, brain-mri, mias"):
        fetch("cifar", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_complete():
    for source in load_sources().values():
        assert source.name in NAMED
        for file in source.files:
            assert all(url.startswith("https://") for url in file.urls)
            # archives packed anew for each request have no fixed hash: their content has
            assert (file.sha256 is None) == (source.recipe is not None)
        if source.recipe is not None:
            assert set(source.recipe.files_sha256) == set(source.recipe.members)
            assert {place.archive for place in source.recipe.members.values()} == {file.name for file in source.files}
            hashes = [*source.recipe.files_sha256.values(), source.recipe.images_sha256]
            assert all(len(value) == 64 for value in hashes)
    assert [file.name for file in load_sources()["mnist"].files] == list(MNIST_FILES)


def test_the_split_list_is_complete_and_keeps_folds_apart():
    entries = read_split_list()
    assert len(entries) == len({(entry.source, entry.identifier) for entry in entries}) == 2885
    counts = Counter((entry.split, entry.class_name) for entry in entries)
    classes = ("glioma", "meningioma", "pituitary", "notumor")
    assert [counts["train", name] for name in classes] == [606, 399, 381, 179]
    assert [counts["val", name] for name in classes] == [249, 130, 209, 27]
    assert [counts["test", name] for name in classes] == [291, 164, 200, 50]
    assert {entry.source for entry in entries} == set(load_sources()["brain-mri"].recipe.members)
    # figshare has no image without a tumour, and an id is a number there
    figshare = [entry for entry in entries if entry.source == "figshare"]
    assert len(figshare) == 2400
    assert all(entry.identifier.isdigit() and entry.class_name != "notumor" for entry in figshare)
