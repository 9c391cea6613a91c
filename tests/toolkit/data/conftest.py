"""Small synthetic images, and an HTTP origin on loopback that can misbehave on demand."""

import http.server
import re
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch, tmp_path):
    """No test finds data sets that happen to be on the machine, or writes to the user's cache."""
    monkeypatch.delenv("GASCNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write_gray():
    """Write a gray PNG of one level, or of given pixels, making its folder."""

    def write(path, pixels=0, size=(8, 6)):
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.full((size[1], size[0]), pixels, np.uint8) if np.isscalar(pixels) else np.asarray(pixels)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def class_folder(tmp_path, write_gray):
    """Two classes of ten gray images each, all different: level 10 * class + index."""
    root = tmp_path / "twoclass"
    for code, name in enumerate(("cls10", "cls2")):
        for index in range(10):
            write_gray(root / name / f"i{index}.png", 100 * code + index)
    return root


@pytest.fixture
def dicom_file():
    """Write a small DICOM image; further elements are given by keyword."""
    return _dicom_file


def _dicom_file(path, pixels, *, syntax=ExplicitVRLittleEndian, bits=12, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    encoding = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, **encoding)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim == (4 if colour else 3):
        ds.NumberOfFrames = len(pixels)
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


@dataclass
class Origin:
    """What the server gives and how it behaves.

    Attributes:
        files: content by name.
        cut_after: bytes after which a response breaks off, or None.
        ranges: whether Range is honoured.
        etag: value of ETag, or None for no validator at all.
        status: answer everything with this status instead, or None.
        lie_start: answer a range request with a range that starts this many bytes later.
        requests: (name, Range header or None) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    ranges: bool = True
    etag: str | None = '"v1"'
    status: int | None = None
    lie_start: int = 0
    redirect: str | None = None
    announce: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


def _handler(origin):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            name = self.path.lstrip("/")
            wanted = self.headers.get("Range")
            origin.requests.append((name, wanted))
            if origin.redirect is not None and not name.startswith("moved/"):
                self.send_response(302)
                self.send_header("Location", f"{origin.redirect}/moved/{name}")
                self.end_headers()
                return
            content = origin.files.get(name.removeprefix("moved/"))
            if origin.status is not None or content is None:
                self.send_error(origin.status or 404)
                return
            self._answer(content, wanted)

        def _answer(self, content, wanted):
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            unchanged = self.headers.get("If-Range") == origin.etag
            if match and origin.ranges and unchanged:
                start = int(match[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                first = start + origin.lie_start
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
                content = content[start:]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(origin.announce or len(content)))
            if origin.etag is not None:
                self.send_header("ETag", origin.etag)
            self.end_headers()
            self.wfile.write(content if origin.cut_after is None else content[: origin.cut_after])

    return Handler


@pytest.fixture
def origin():
    served = Origin()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()
