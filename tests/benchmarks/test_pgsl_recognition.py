import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats

from gascnn.benchmarks.pgsl import partition, presets, recognition, strength
from gascnn.benchmarks.pgsl.decoder import DecoderSettings
from gascnn.benchmarks.pgsl.gradient_inversion import InversionSettings
from gascnn.benchmarks.pgsl.intervals import Scored, figure, over_answers, over_seeds, over_units
from gascnn.benchmarks.pgsl.partial import unpack
from gascnn.benchmarks.pgsl.partition import make_partition, patient_folds
from gascnn.benchmarks.pgsl.presets import PRESETS, Settings, preset
from gascnn.benchmarks.pgsl.recognition_table import PAPER, markdown
from gascnn.benchmarks.pgsl.reconstructed import reconstructions
from gascnn.benchmarks.pgsl.reconstruction_settings import preset as reconstruction_preset
from gascnn.benchmarks.pgsl.reconstructors import ReconstructorSettings
from gascnn.benchmarks.pgsl.strength import Strength
from gascnn.benchmarks.pgsl.training import Recipe
from gascnn.toolkit.errors import DataError, FormatError, UsageError
from gascnn.toolkit.pgsl.options import LocalOptions, PgslOptions
from gascnn.toolkit.wilson import wilson_interval

TINY = Settings(
    "digits",
    train_images=80,
    val_images=30,
    test_images=40,
    white_box_images=10,
    seeds=(0, 1),
    options=PgslOptions(width=8, hidden=12, grid=2, pixels=2, recovery_iterations=5, epochs=2, batch_size=20),
    local=LocalOptions(width=4, epochs=2),
)
ATTACKS = ("jsma", "fgsm")


def inverted(networks):
    """A method of reconstruction that needs no network."""
    return lambda images: 255 - images


RECONSTRUCTIONS = recognition.Reconstructions({"DLG": inverted}, images=20, described={"iterations": 7})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("table2") / "partial.json"
    told = []
    found = recognition.measure(
        TINY, partial=path, attacks=ATTACKS, reconstructions=RECONSTRUCTIONS, progress=told.append
    )
    return found, path, told


def test_rows_are_counted_from_their_answers(report):
    found, _, told = report
    assert list(found["figures"]) == [
        "recovered", "fused", "attacked", "fusion", "clean", "jsma, clean", "jsma, attacked",
        "fgsm, clean", "fgsm, attacked", "fgsm, white-box", "reconstructed, DLG", "majority class",
    ]  # fmt: skip
    for name, row in found["figures"].items():
        for place, seed in enumerate(("0", "1")):
            known = found["seeds"][seed]
            labels = bytes.fromhex(known["labels"])
            answers = (
                [known["majority"]] * 40 if name == "majority class" else bytes.fromhex(known["rows"][name]["answers"])
            )
            right = sum(one == other for one, other in zip(answers, labels, strict=False))
            assert row["by_seed"][place] == pytest.approx(right / len(answers))
            assert row["images"][place] == len(answers)
            assert row["interval_by_seed"][place] == pytest.approx(wilson_interval(right, len(answers)))
    assert found["figures"]["fgsm, white-box"]["images"] == [10, 10]
    assert found["figures"]["reconstructed, DLG"]["images"] == [20, 20]
    fusion, fused = (found["figures"][name]["by_seed"] for name in ("fusion", "fused"))
    assert found["fusion_minus"]["fused"]["by_seed"] == pytest.approx(np.subtract(fusion, fused))
    assert told[0] == "digits, seed 0: split network, plain"
    json.dumps(found, allow_nan=False)


def test_no_test_label_enters_an_answer(report, monkeypatch):
    made = make_partition

    def shuffled(*args, **kwargs):
        part = made(*args, **kwargs)
        order = torch.randperm(len(part.test.labels), generator=torch.Generator().manual_seed(3))
        test = dataclasses.replace(part.test, labels=part.test.labels[order])
        assert not torch.equal(test.labels, part.test.labels)
        return dataclasses.replace(part, test=test)

    monkeypatch.setattr(presets, "make_partition", shuffled)
    settings = dataclasses.replace(TINY, seeds=(0,))
    other = recognition.measure(settings, attacks=ATTACKS, reconstructions=RECONSTRUCTIONS)
    rows = report[0]["seeds"]["0"]["rows"]
    assert {name: row["answers"] for name, row in other["seeds"]["0"]["rows"].items()} == {
        name: row["answers"] for name, row in rows.items()
    }


def test_a_broken_run_goes_on_to_the_same_figures(report, tmp_path):
    found, path, _ = report
    kept = json.loads(path.read_text())
    del kept["seeds"]["0"]["rows"]["fgsm, clean"], kept["seeds"]["1"]
    (tmp_path / "partial.json").write_text(json.dumps(kept))
    told = []
    again = recognition.measure(
        TINY,
        partial=tmp_path / "partial.json",
        attacks=ATTACKS,
        reconstructions=RECONSTRUCTIONS,
        progress=told.append,
    )
    assert again["figures"] == found["figures"]
    assert again["fusion_minus"] == found["fusion_minus"]
    assert "digits, seed 0: split network, plain" not in told
    assert "digits, seed 1: split network, plain" in told
    with pytest.raises(UsageError, match="its settings is not this run's"):
        recognition.measure(dataclasses.replace(TINY, test_images=41), partial=path)
    for changed in ({"images": 10}, {"described": {"iterations": 8}}):
        other = dataclasses.replace(RECONSTRUCTIONS, **changed)
        with pytest.raises(
            UsageError, match="row 'reconstructed, DLG' of seed 0 is of other images or made by another"
        ):
            recognition.measure(TINY, partial=path, attacks=ATTACKS, reconstructions=other)
    (tmp_path / "partial.json").write_text('{"seeds": 3}')
    with pytest.raises(FormatError, match="not partial results"):
        recognition.measure(TINY, partial=tmp_path / "partial.json")


def test_measure_refuses():
    with pytest.raises(UsageError, match="attack is 'pgd'"):
        recognition.measure(TINY, attacks=("pgd",))
    settings = dataclasses.replace(TINY, seeds=(0,), train_images=20, options=PgslOptions(width=4, epochs=1))
    floats = recognition.Reconstructions({"DLG": lambda networks: lambda images: images.float()}, images=20)
    with pytest.raises(DataError, match=r"DLG gives torch.float32 of shape \(20, 1, 8, 8\); uint8 \(20, 1, 8, 8\)"):
        recognition.measure(settings, attacks=(), reconstructions=floats)


def test_reconstructions_as_in_table_1():
    settings = dataclasses.replace(
        reconstruction_preset("smoke", "digits"),
        auxiliary_images=20,
        methods=ReconstructorSettings(InversionSettings(iterations=2, restarts=1), DecoderSettings(hidden=4, epochs=1)),
    )
    found = recognition.measure(
        dataclasses.replace(TINY, seeds=(0,)), attacks=(), reconstructions=reconstructions(settings, 3)
    )
    rows = found["seeds"]["0"]["rows"]
    for name in ("DLG", "iDLG", "DCGAN"):
        row = rows[f"reconstructed, {name}"]
        assert found["figures"][f"reconstructed, {name}"]["images"] == [3]
        assert row["mse"] > 0
        assert row["method"]["inversion"]["iterations"] == 2
        assert row["method"]["auxiliary_images"] == 20
    with pytest.raises(UsageError, match="images to reconstruct are 0; at least 1"):
        reconstructions(settings, 0)


def test_table_has_the_papers_figures_beside_ours(report):
    found = json.loads(json.dumps(report[0]))
    found["settings"]["data"] = "mias"
    for seed in found["seeds"].values():
        seed["rows"]["fgsm, attacked"]["train_images"] = 30
    page = markdown(found, "gascnn bench").splitlines()
    cells = {tuple(line.split(" | ")[:2]): line.strip("| ").split(" | ") for line in page if line.startswith("| ")}
    row = cells["| FGSM", "trained and tested on attacked"]
    assert row[2] == "61.9"
    assert row[3] == f"{100 * found['figures']['fgsm, attacked']['mean']:.2f}"
    assert cells["| FGSM", "trained on clean, attacked by its own gradient"][2] == "–"
    assert cells["| DLG", "trained on clean, tested on reconstructed"][2] == "65.7"
    assert cells["| PGSL (fusion)", ""][2] == "83.2"
    assert cells["| S_r", ""][2] == "78.5"
    assert cells["| clean images", ""][2] == "–"
    assert page[0].startswith(
        "`mias`, images of their stored size, framing whole, 80 training images, 2 epochs, 2 seeds; "
    )
    assert "mu 0.55 in largest singular values" in page[0]
    assert cells["| FGSM", "trained and tested on attacked"][-1] == "40, trained with 30"
    assert cells["| FGSM", "trained on clean, tested on attacked"][-1] == "40"
    assert page[-1] == "`gascnn bench`"
    assert set(PAPER["mias"]) == set(PAPER["mnist"])


def test_interval_over_seeds_is_students():
    means = [0.7, 0.72, 0.69, 0.75, 0.71]
    expected = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means))
    assert over_seeds(means) == pytest.approx(expected)
    assert over_seeds([0.5]) is None


def test_patients_are_drawn_whole():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 200).astype(np.float64)
    alone = Scored(np.arange(400), np.repeat(right, 2))
    pairs = Scored(np.repeat(np.arange(200), 2), np.repeat(right, 2))
    width = [high - low for low, high in (over_units([alone]), over_units([pairs]))]
    # Two equal films a patient are worth one: the interval is wider by the root of two.
    assert width[1] / width[0] == pytest.approx(2**0.5, rel=0.1)
    assert width[1] == pytest.approx(2 * 1.96 * right.std() / 200**0.5, rel=0.1)
    # The same images in two seeds are no new images.
    assert over_units([Scored(np.arange(200), right)] * 2) == over_units([Scored(np.arange(200), right)])
    assert figure([alone])["interval_seeds"] is None
    with pytest.raises(DataError, match="one each"):
        over_units([Scored(np.arange(3), right)])
    with pytest.raises(DataError, match="no images"):
        over_units([])


def test_shares_near_their_ends_have_intervals_too():
    """Wilson's where each image counts once, as scipy has it; of clustered answers that are all alike, of the units."""
    for right, count in ((50, 50), (1, 200), (0, 7), (4964, 5000)):
        scored = Scored(np.arange(count), (np.arange(count) < right).astype(float))
        expected = stats.binomtest(right, count).proportion_ci(method="wilson")
        assert over_answers([scored]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    pairs = np.repeat(np.arange(30), 2)
    expected = stats.binomtest(30, 30).proportion_ci(method="wilson")
    assert over_answers([Scored(pairs, np.ones(60))]) == pytest.approx((expected.low, 1.0), abs=1e-12)
    mixed = Scored(pairs, np.tile([0.0, 1.0, 1.0], 20))
    assert over_answers([mixed]) == over_units([mixed])
    with pytest.raises(DataError, match="values other than 0 and 1"):
        over_answers([Scored(np.arange(3), np.array([0.0, 1.0, -1.0]))])


def test_folds_keep_patients_together_and_test_each_once():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(1, 101), 2)
    labels = np.where(rng.random(200) < 0.6, 0, rng.integers(1, 3, 200))
    tested = np.zeros(200, dtype=int)
    for seed in range(5):
        places = patient_folds(labels, patients, seed)
        tested += places == "test"
        assert (places[::2] == places[1::2]).all()
        assert {"train", "val", "test"} == set(places.tolist())
        assert np.count_nonzero(places == "test") == 40
        assert 15 <= np.count_nonzero(places == "val") <= 35
        shares = [np.mean(labels[places == name] == 0) for name in ("train", "test")]
        assert abs(shares[0] - shares[1]) < 0.2
    assert (tested == 1).all()
    assert (patient_folds(labels, patients, 0) == patient_folds(labels, patients, 0)).all()
    assert (patient_folds(labels, patients, 0) != patient_folds(labels, patients, 5)).any()


@pytest.fixture
def mammograms(tmp_path):
    """A file like mini-MIAS's whose images say which film they are."""
    films = np.arange(1, 61)
    np.savez(
        tmp_path / "mias.npz",
        images=np.repeat(films, 16 * 16).reshape(60, 16, 16).astype(np.uint8),
        labels=np.tile([0, 0, 0, 0, 1, 2], 10),
        ref=np.array([f"mdb{film:03d}" for film in films]),
        tissue=np.array(["FGD"[film // 2 % 3] for film in films]),
    )
    return tmp_path


def test_mias_is_divided_by_patient_pair(mammograms):
    part = make_partition("mias", 1, image_size=8, data_dir=mammograms)
    films = {name: getattr(part, name).images[:, 0, 0, 0].long() for name in ("train", "val", "test")}
    assert sum(map(len, films.values())) == 60
    pairs = {name: set(((found + 1) // 2).tolist()) for name, found in films.items()}
    assert not pairs["train"] & (pairs["test"] | pairs["val"])
    assert not pairs["val"] & pairs["test"]
    assert part.units.tolist() == ((films["test"] + 1) // 2).tolist()
    assert part.test.labels.tolist() == [[0, 0, 0, 0, 1, 2][(film - 1) % 6] for film in films["test"].tolist()]
    assert part.test.images.shape[1:] == (1, 8, 8)
    other = make_partition("mias", 2, image_size=8, data_dir=mammograms).test.images[:, 0, 0, 0]
    assert not set(other.tolist()) & set(films["test"].tolist())
    with pytest.raises(DataError, match="mias"):
        make_partition("mias", 0, data_dir=mammograms / "nowhere")
    with np.load(mammograms / "mias.npz") as arrays:
        changed = dict(arrays)
    np.savez(mammograms / "mias.npz", **(changed | {"ref": np.array(["film"] * 60)}))
    with pytest.raises(DataError, match="film references are not of the form mdb001"):
        make_partition("mias", 0, data_dir=mammograms)


def test_the_same_films_have_their_tissue_as_label(mammograms):
    part = make_partition("mias-tissue", 1, image_size=8, data_dir=mammograms)
    assert part.classes == 3
    for name in ("train", "val", "test"):
        half = getattr(part, name)
        assert half.labels.tolist() == [film // 2 % 3 for film in half.images[:, 0, 0, 0].tolist()]
    with np.load(mammograms / "mias.npz") as arrays:
        changed = dict(arrays)
    changed["tissue"][7] = "X"
    np.savez(mammograms / "mias.npz", **changed)
    with pytest.raises(DataError, match="tissue 'X'; allowed: F, G, D"):
        make_partition("mias-tissue", 0, data_dir=mammograms)


def test_other_sets_draw_training_images_by_seed():
    first, second = (make_partition("digits", seed, limits=(50, 20, 30)) for seed in (0, 1))
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.train.images, second.train.images)
    assert [len(part.labels) for part in (first.train, first.val, first.test)] == [50, 20, 30]
    assert first.classes == 10
    assert partition.FOLDS == 5


def test_validation_images_choose_the_recipe():
    recipes = (Recipe("stuck", changes=(("learning_rate", 1e-8),)), Recipe("learns", changes=(("epochs", 8),)))
    settings = dataclasses.replace(
        TINY,
        seeds=(0,),
        train_images=150,
        test_images=10,
        white_box_images=0,
        recipes=recipes,
        options=dataclasses.replace(TINY.options, epochs=1, batch_size=10, learning_rate=1e-2, recovery="none"),
    )
    found = recognition.measure(settings, attacks=())["seeds"]["0"]
    assert found["split"]["recipe"] == "learns"
    validation = found["split"]["validation_accuracy"]
    assert validation["learns"] > validation["stuck"]
    assert found["rows"]["clean"]["plain"]["recipe"] == "learns"


def test_strength_curve(tmp_path):
    points = (Strength("literal"), Strength("pixels", 6), Strength("bound", 0.2))
    settings = dataclasses.replace(TINY, seeds=(0,), options=dataclasses.replace(TINY.options, recovery="none"))
    path = tmp_path / "partial.json"
    found = strength.measure(settings, points, partial=path)
    assert [point["name"] for point in found["points"]] == ["literal", "pixels 6", "bound 0.2"]
    literal, six, bound = found["points"]
    assert literal["pixels_changed"] == pytest.approx(0, abs=2)
    assert 3 < six["pixels_changed"] <= 6
    assert bound["pixels_changed"] > six["pixels_changed"]
    row = found["seeds"]["0"]["rows"]["pixels 6"]
    labels = unpack(found["seeds"]["0"]["labels"])
    for network, figures in six["figures"].items():
        assert figures["mean"] == pytest.approx((unpack(row["answers"][network]) == labels).mean())
    told = []
    assert strength.measure(settings, points, partial=path, progress=told.append)["points"] == found["points"]
    assert told == []
    page = strength.markdown(found)
    assert f"| pixels 6 | {100 * six['figures']['fusion']['mean']:.2f} (" in page
    with pytest.raises(UsageError, match="at least one is needed, each once"):
        strength.measure(settings, [points[1], points[1]])
    with pytest.raises(UsageError, match=r"pixels is 2\.5; allowed"):
        strength.measure(settings, [Strength("pixels", 2.5)])


def test_settings_and_presets():
    for name, by_data in PRESETS.items():
        for data, settings in by_data.items():
            assert preset(name, data) is settings
            assert settings.data == data
            json.dumps(settings.to_dict())
    with pytest.raises(UsageError, match="preset is 'big'; allowed: smoke, small, paper"):
        preset("big", "mnist")
    with pytest.raises(UsageError, match="preset smoke is for digits, not for mias"):
        preset("smoke", "mias")
    with pytest.raises(UsageError, match="seeds are"):
        Settings("digits", seeds=(1, 1))
    with pytest.raises(UsageError, match="each of its own name"):
        Settings("digits", recipes=(Recipe(), Recipe()))
    with pytest.raises(UsageError, match="test_images is 1"):
        Settings("digits", test_images=1)
