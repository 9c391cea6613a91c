"""A page in a real Chromium without a window: what it logs, what it asks of the network, how it is laid out."""

import json
import re
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars", "--disable-extensions",
    "--disable-default-apps", "--metrics-recording-only", "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
SEEN = """<script>addEventListener("load", () => {{
  const images = [...document.images];
  const wide = [...document.querySelectorAll("main *, header *")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll"));
  parent.postMessage(JSON.stringify({{width: innerWidth, scroll: document.documentElement.scrollWidth,
    images: images.length, drawn: images.filter((i) => i.complete && i.naturalWidth > 0).length,
    widest: Math.max(...images.map((i) => i.getBoundingClientRect().right)),
    outside: wide.map((e) => e.tagName + ": " + e.textContent.slice(0, 40)),
    rows: document.querySelectorAll("tbody tr").length}}), "*");
}});</script>"""

FRAME = """<html><head><title>nothing came</title><script>
addEventListener("message", (event) => {{ document.title = event.data; }});</script></head>
<body style="margin:0"><iframe src="{name}" width="{width}" height="1200" style="border:0"></iframe></body></html>"""


def chromium():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, "these tests open pages in Chromium, and none is installed; run: make browser"
    return found


def run(tmp_path, page, *more, width=1400):
    """Standard output and error."""
    done = subprocess.run(
        [chromium(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200", *more,
         page.resolve().as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def logged_and_asked(tmp_path, page):
    """Messages on the console, and every address that the page asked for; the browser's own have no origin."""
    log = tmp_path / "net.json"
    _, said = run(tmp_path, page, "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom")
    kept = json.loads(log.read_text(encoding="utf-8"))
    begun = kept["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in kept["events"] if event["type"] == begun]
    asked = {job["url"] for job in jobs if job.get("initiator", "not an origin") != "not an origin"}
    return [line for line in said.splitlines() if "CONSOLE" in line], asked


def layout(tmp_path, page, width):
    """How the page lies in a window of a width: measured by a script that only this copy has."""
    text = page.read_text(encoding="utf-8")
    text, removed = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert removed == 1
    copy = tmp_path / f"copy-{width}.html"
    copy.write_text(text.replace("</head>", SEEN.format() + "</head>"), encoding="utf-8")
    frame = tmp_path / f"frame-{width}.html"  # a window of its own cannot be as narrow as a telephone
    frame.write_text(FRAME.format(width=width, name=copy.name), encoding="utf-8")
    found, _ = run(tmp_path, frame, "--dump-dom", "--virtual-time-budget=5000")
    title = re.search(r"<title>(\{.*?\})</title>", found, re.S)
    assert title, found[:500]
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
