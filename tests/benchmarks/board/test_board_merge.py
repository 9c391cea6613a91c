"""Results of several boards in one table; a result is a file from elsewhere, and nothing in it is believed unread."""

from __future__ import annotations

import copy
import json

import pytest

from gascnn.benchmarks.board.figures import accuracy
from gascnn.benchmarks.board.merge import add_log, markdown, merge
from gascnn.benchmarks.board.results import LARGEST_RESULT, read_result
from gascnn.toolkit.errors import FormatError, UsageError

MEASURED = {
    "measured": True, "meter": "pmic", "description": "all rails of a Raspberry Pi 5", "kind": "power samples",
    "idle_power_w": 2.5, "power_w": 4.0, "inferences": 900, "energy_per_inference_j": 0.0021,
    "interval_j": [0.0019, 0.0023], "total_energy_per_inference_j": 0.005, "sampling_rate_hz": 10.0,
    "sampling_error_j": 0.0001, "rounds": [], "warnings": ["idle power was restless"],
}  # fmt: skip
CONDITIONS = {
    "governors": {"ondemand": 4}, "frequencies_khz": [1500000] * 4, "temperatures_c": {"zone0 cpu": 51.2},
    "unreadable": [],
}  # fmt: skip


def contender(name, p50_s, energy, **comparison):
    found = {"images": 200, "equal_answers": 199, "different_answers": 1, "agreement": 0.995, "agrees": None}
    if name == "snn":
        found |= {"bit_equal": True, "unequal_images": 0, "largest_count_difference": 0}
        found |= {"largest_membrane_difference": 0}
    else:
        found |= {"equal_answers_torch": 200, "largest_logit_difference": 1e-6, "of_largest_logit": 1e-7}
        found |= {"identical": False}
    return {
        "name": name,
        "accuracy": accuracy(180, 200),
        "accuracy_where_packed": accuracy(181, 200),
        "latency": {
            "samples": 200, "p50_s": p50_s, "p95_s": 2 * p50_s, "p99_s": None, "mean_s": p50_s,
            "images_per_s": 1 / p50_s,
        },
        "comparison": {**found, **comparison},
        "energy": energy,
    }  # fmt: skip


def result(**changed):
    none = {"measured": False, "why": "no energy meter can be read here"}
    value = {
        "kind": "gascnn-board-result",
        "format": 1,
        "name": "Raspberry Pi 5",
        "started": "2026-11-22T10:00:00+00:00",
        "duration_s": 100.0,
        "pack": {
            "manifest_sha256": "a" * 64, "gascnn": "0.1.0", "data": {"name": "digits", "provenance": "test split"},
            "images": 200, "classes": ["0", "1"], "steps": 16, "note": "",
        },
        "machine": {
            "processor": "Cortex-A76", "cores": 4, "cores_used": 4, "memory_bytes": 8_000_000_000, "system": "Linux",
            "python": "3.11.2", "load": 0.1,
        },
        "versions": {"onnxruntime": "1.23.2", "numpy": "2.0"},
        "settings": {"threads": 1, "simulator_method": "plain", "turns": 20},
        "conditions": {"before": CONDITIONS, "after": CONDITIONS},
        "meters": {"used": "pmic", "unavailable": [{"name": "rapl", "why": "not there"}]},
        "contenders": [contender("ann-fp32", 0.004, MEASURED), contender("snn", 0.5, none, equal_answers=200)],
        "peak_memory_bytes": 120_000_000,
        "agrees": True,
        "notes": [],
    }  # fmt: skip
    return copy.deepcopy({**value, **changed})


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_two_boards_side_by_side(tmp_path):
    one = write(tmp_path / "a.json", result())
    two = write(tmp_path / "b.json", result(name="Jetson", agrees=False, notes=["snn: 1 of 200 answers differ"]))
    merged = merge([one, two])
    assert [board["name"] for board in merged["boards"]] == ["Raspberry Pi 5", "Jetson"]
    assert [board["pack"] for board in merged["boards"]] == [0, 0]
    assert [pack["manifest_sha256"] for pack in merged["packs"]] == ["a" * 64]
    assert json.loads(json.dumps(merged, allow_nan=False)) == merged
    text = markdown(merged)
    # 180 of 200 by Wilson, z = 1.959964: (0.9 + z²/400 -+ z sqrt(0.9 0.1/200 + z²/160000)) / (1 + z²/200).
    assert (
        "| Raspberry Pi 5 | ann-fp32 | 200 | 90.0 % (85.1 to 93.4) | 199/200 | 4 | 8 | - | 250 | 2.1 (1.9 to 2.3) |"
    ) in text
    assert (
        "| Jetson | snn | 200 | 90.0 % (85.1 to 93.4) | 200/200, bit-equal | 500 | 1000 | - | 2 | not measured |"
        in text
    )
    assert "| Raspberry Pi 5 | Cortex-A76 | 4 of 4 | 8.0 | 1 | 3.11.2 | 1.23.2 | plain | 120 | ondemand | yes |" in text
    assert "- Jetson: snn: 1 of 200 answers differ" in text
    assert "- Jetson: energy not measured: no energy meter can be read here" in text
    assert "- Raspberry Pi 5: ann-fp32: idle power was restless" in text
    assert "| Jetson | Cortex-A76 |" in text
    assert "| NO |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in lines} == {11, 12}


def test_names_are_made_unique(tmp_path):
    names = ["Pi", "Pi (2)", "Pi", "Pi"]
    paths = [write(tmp_path / f"{i}.json", result(name=name, duration_s=float(i))) for i, name in enumerate(names)]
    assert [board["name"] for board in merge(paths)["boards"]] == ["Pi", "Pi (2)", "Pi (3)", "Pi (4)"]


def test_what_does_not_belong_together_is_refused(tmp_path):
    one = write(tmp_path / "a.json", result())
    with pytest.raises(UsageError, match="there are no results to merge"):
        merge([])
    with pytest.raises(UsageError, match=r"a\.json and .*a\.json are the same result; give each once"):
        merge([one, one])
    with pytest.raises(UsageError, match=r"copy\.json and .*a\.json are the same result"):
        merge([one, write(tmp_path / "copy.json", result())])
    other = result(duration_s=5.0)
    other["pack"]["manifest_sha256"] = "b" * 64
    other["pack"]["steps"] = 32
    two = write(tmp_path / "b.json", other)
    with pytest.raises(UsageError, match=r"b\.json was measured with another pack than .*a\.json"):
        merge([one, two])
    merged = merge([one, two], different_packs=True)
    assert [board["pack"] for board in merged["boards"]] == [0, 1]
    text = markdown(merged)
    assert "Pack 2: 200 images of digits, 2 classes, T = 32" in text
    assert "| 2 | Raspberry Pi 5 (2) | snn |" in text
    other["pack"]["manifest_sha256"] = "a" * 64
    write(two, other)
    with pytest.raises(FormatError, match="what it says of its pack is not what the others say"):
        merge([one, two])


def damaged(change):
    value = result()
    change(value)
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(kind="gascnn-board-pack"), "not a file of kind gascnn-board-result"),
        (lambda r: r.update(format=2), "format 2 of gascnn-board-result; this version reads format 1"),
        (lambda r: r.update(name=7), "name is 7; it must be a text"),
        (lambda r: r.update(name="x" * 201), r"name is 'x+\.\.\.; it must be a text of at most 200 characters"),
        (lambda r: r.pop("machine"), "machine is missing; it must be an object"),
        (lambda r: r["machine"].update(cores=True), "machine.cores is True; it must be an integer"),
        (lambda r: r["contenders"][0].update(name="cnn"), r"contenders\[0\].name is 'cnn'; it must be one of ann-fp32"),
        (lambda r: r["contenders"].append(r["contenders"][0]), "contenders is a list; it must be a list of networks"),
        (lambda r: r.update(contenders=[]), "contenders is a list; it must be a list of networks"),
        (lambda r: r.update(contenders=r["contenders"] * 9), "contenders is a list; it must be a list of at most 3"),
        (lambda r: r["contenders"][0]["latency"].update(p50_s="1"), r"contenders\[0\].latency.p50_s is '1'"),
        (lambda r: r["contenders"][0]["latency"].update(p50_s=-1), "p50_s is -1; it must be a number of 0"),
        (lambda r: r["contenders"][0]["latency"].update(p50_s=10**400), "p50_s is 1000+"),
        (lambda r: r["contenders"][0]["accuracy"].update(value=0.99), "accuracy.value is 0.99; it must be right / im"),
        (lambda r: r["contenders"][0]["accuracy"].update(right=201), "right is 201; it must be an integer of 0 to 200"),
        (lambda r: r["contenders"][0]["comparison"].update(equal_answers=999), "equal_answers is 999"),
        (lambda r: r["contenders"][1]["comparison"].update(bit_equal=1), "bit_equal is 1; it must be true or false"),
        (lambda r: r["contenders"][0]["energy"].update(interval_j=[2, 3]), "interval_j is a list; it must be null, or"),
        (lambda r: r["contenders"][0]["energy"].update(interval_j=[3, 2]), "interval_j is a list; it must be two numb"),
        (lambda r: r["contenders"][0]["energy"].update(power_w=None), "power_w is None; it must be a number"),
        (lambda r: r["contenders"][1]["energy"].pop("why"), "energy.why is missing"),
        (lambda r: r["pack"].update(manifest_sha256="A" * 64), "manifest_sha256 is 'AAAA"),
        (lambda r: r["conditions"].update(after=[]), "conditions.after is a list; it must be an object"),
        (lambda r: r["conditions"]["after"].update(governors={"x": 1.5}), "governors.x is 1.5; it must be an integer"),
        (lambda r: r.update(notes="none"), "notes is 'none'; it must be a list of texts"),
        (lambda r: r.update(notes=["a\nb", 3]), "notes is a list; it must be a list of texts"),
    ],
)
def test_a_result_that_cannot_be_is_refused_in_one_line(tmp_path, change, message):
    path = write(tmp_path / "r.json", damaged(change))
    with pytest.raises(FormatError, match=message) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b"\xff\xfe", b"\x80\x04\x95pickled", b"[" * 100_000, b'{"kind": NaN}',
     b'{"kind": "gascnn-board-result", "format": 1, "name": "\\ud800"}', b'{"n": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_not_a_result_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"r\.json: not (JSON|a file of kind)") as caught:
        read_result(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_a_file_too_large_or_not_there_is_not_read(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(result()) + " " * LARGEST_RESULT)
    with pytest.raises(FormatError, match="more than 4194304 bytes"):
        read_result(path)
    with pytest.raises(FormatError, match=r"no\.json: cannot be read \(No such file"):
        read_result(tmp_path / "no.json")
    with pytest.raises(FormatError, match=r"cannot be read \(Is a directory\)"):
        read_result(tmp_path)


def test_what_was_read_can_be_written_and_read_again(tmp_path):
    first = read_result(write(tmp_path / "a.json", result(unknown="dropped")))
    assert "unknown" not in first
    assert read_result(write(tmp_path / "b.json", first)) == first


def test_texts_from_a_file_do_no_harm_to_the_table(tmp_path):
    name = "a|b\n| c <script>alert(1)</script> `x` [y](z) **w** \x1b[31m"
    text = markdown(merge([write(tmp_path / "a.json", result(name=name))]))
    assert "<script>" not in text
    assert "\x1b" not in text
    assert (
        "| a\\|b \\| c &lt;script&gt;alert(1)&lt;/script&gt; \\`x\\` \\[y\\](z) \\*\\*w\\*\\* \\[31m | ann-fp32 |"
        in text
    )


def test_energy_from_a_log_that_was_elsewhere(tmp_path):
    """By hand: 2 W idle, 6 W while working for 10 s, 100 images: 40 J above idle, 0.4 J an image."""
    begun = 1_800_000_000.0
    rounds = [
        {"before": [t + 1, t + 4], "busy": [t + 6, t + 16], "after": [t + 18, t + 21], "inferences": 100}
        for t in (begun, begun + 30)
    ]
    windows = {"format": "gascnn-power-windows", "version": 1, "rounds": rounds}
    value = result()
    value["contenders"][1]["energy"] = {"measured": False, "why": "log.csv is not there", "windows": windows}
    path = write(tmp_path / "r.json", value)
    lines = ["time,power_W"]
    for tenth in range(700):
        at = tenth / 10
        busy = any(start + 5 <= at <= start + 17 for start in (0, 30))
        lines.append(f"{begun + at:.1f},{(6 if busy else 2) + tenth % 2 / 100}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    found = add_log(path, tmp_path / "log.csv")
    energy = found["contenders"][1]["energy"]
    assert energy["energy_per_inference_j"] == pytest.approx(0.4, rel=0.01)
    assert found["meters"]["used"] == "usb-log"
    assert found["contenders"][0]["energy"]["meter"] == "pmic"
    merged = merge([write(tmp_path / "with.json", found)])
    assert "| 400 (400 to 400) |" in markdown(merged)
    assert energy["total_energy_per_inference_j"] == pytest.approx(0.6, rel=0.01)
    (tmp_path / "short.csv").write_text("\n".join(lines[:300]) + "\n")
    with pytest.raises(FormatError, match=r"short\.csv"):
        add_log(path, tmp_path / "short.csv")
    with pytest.raises(UsageError, match="holds no times of work and idle"):
        add_log(write(tmp_path / "none.json", result()), tmp_path / "log.csv")
