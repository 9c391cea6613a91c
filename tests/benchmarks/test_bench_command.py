"""``gascnn bench simulator`` as a user types it, on a tiny network and without any peer."""

import json

import pytest

from gascnn.toolkit.cli import main

TINY = (
    "--net",
    "convs",
    "--width",
    "4",
    "--size",
    "8",
    "--steps",
    "5",
    "--images",
    "2",
    "--rounds",
    "2",
    "--seconds",
    "0.02",
)


@pytest.fixture
def bench(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; gives exit status, output and what went to standard error."""
    monkeypatch.delenv("GASCNN_PEERS_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["bench", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(left.value.code or 0), captured.out, captured.err

    return run


def test_the_group_lists_its_commands_and_knows_no_others(bench):
    status, out, _ = bench("--help")
    assert status == 0
    assert "simulator  measure the simulator against Lava" in out
    status, _, err = bench("guess")
    assert status == 2
    assert "No such command 'guess'" in err


def test_a_race_of_our_own_methods(bench, tmp_path):
    status, out, err = bench(
        "simulator", *TINY, "--rate", "0.08", "--no-lava", "--json", "r.json", "--plot", "r.svg",
        "--images-at-once", "1,2",
    )  # fmt: skip
    assert status == 0, err
    for name in ("spikingjelly", "snntorch", "sinabs", "onnxruntime"):
        assert f"note: without {name}: no environment for the peers; run 'make peers'" in err
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result) == {
        "format", "machine", "threads", "rounds", "seed", "left_out", "networks", "scaling",
    }  # fmt: skip
    (network,) = result["networks"]
    assert [c["name"] for c in network["contenders"]] == ["ours", "ours-1-thread", "ours-plain"]
    assert [c["threads"] for c in network["contenders"]] == [2, 1, 2]
    for contender in network["contenders"]:
        assert contender["equal_spikes"] is True
        assert len(contender["per_image_s_rounds"]) == 2
        assert contender["per_image_s"] > 0
        assert contender["peak_bytes"] > 10 << 20
        assert "numpy" in contender["versions"]
        assert set(contender) == {
            "name", "title", "kind", "threads", "option", "images_at_once", "per_image_s", "per_image_s_rounds",
            "option_one_image", "per_image_s_one_image", "per_image_s_one_image_rounds", "peak_bytes",
            "equal_spikes", "spikes_a_layer", "versions",
        }  # fmt: skip
    assert [(g["against"], g["reached"]) for g in network["goals"][:3]] == [(None, None)] * 3
    assert "times as fast as one thread" in out
    assert "firing a layer (promised 8 %):" in out
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "rounds is 0; it must be at least 1"),
        (("--rate", "1.5"), "firing rate is 1.5; it must be above 0 and below 1"),
        (("--seconds", "0"), "at_least_s is 0.0; it must be above 0"),
        (("--steps", "0"), "--steps is 0; it must be at least 1"),
        (("--contenders", "ours,brian"), "unknown contender 'brian'"),
        (("--images-at-once", "1,x"), "--images-at-once is '1,x'; give whole numbers such as 1,4,8"),
        (("--plot", "a.jpg"), "a.jpg is not a picture this command writes"),
        (("--peers", "nowhere/python"), "is not an interpreter"),
        (("--net", "none"), "--net none leaves nothing to do but --scaling"),
        (("--net", "resnet18", "--size", "40"), "size is 40; 4 stages need a multiple of 16"),
    ],
)
def test_wrong_use_is_one_line_and_measures_nothing(bench, tmp_path, arguments, message):
    status, out, err = bench("simulator", "--contenders", "ours", *arguments, "--json", "r.json")
    assert status == 2
    assert message in err.strip().splitlines()[-1]
    assert out == ""
    assert not (tmp_path / "r.json").exists()
