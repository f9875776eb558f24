"""Files behind a network are read by few requests, which are tried again, and a failure names the address."""

import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rasterio.env import get_gdal_config
from rasterio.windows import Window

from geounet.errors import SceneError
from geounet.raster.gdal import REMOTE_DEFAULTS, is_remote, network
from geounet.raster.scene import open_scene
from tests.making import write_raster


class Shelf(BaseHTTPRequestHandler):
    """Serves files of a folder whole or by range, failing as often as it is told."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        shelf = self.server.shelf
        name = self.path.lstrip("/")
        shelf.requests.append((self.command, name, self.headers.get("Range")))
        shelf.asked[name] += 1
        if shelf.status.get(name) and shelf.asked[name] <= shelf.failures.get(name, 10**9):
            self.reply(shelf.status[name], b"busy", body)
        elif not (shelf.folder / name).is_file():
            self.reply(404, b"no such thing", body)
        elif part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            data = (shelf.folder / name).read_bytes()
            first, last = int(part[1]), min(int(part[2]), len(data) - 1)
            self.reply(206, data[first : last + 1], body, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})
        else:
            self.reply(200, (shelf.folder / name).read_bytes(), body)

    def reply(self, status, data, body, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        """Say nothing."""


class Serving:
    def __init__(self, folder):
        self.folder, self.requests, self.asked = folder, [], Counter()
        self.status, self.failures = {}, {}


@contextmanager
def serving(folder):
    shelf = Serving(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.shelf = shelf
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    shelf.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield shelf
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as shelf:
        yield shelf


def large(folder, name="s.tif"):
    pixels = np.random.default_rng(0).integers(0, 60_000, (3, 512, 512)).astype(np.uint16)
    return pixels, write_raster(folder / name, pixels, tiled=True, blockxsize=64, blockysize=64, interleave="pixel")


def test_a_window_of_a_remote_file_is_read_by_few_requests(shelf, tmp_path):
    pixels, path = large(tmp_path)
    scene = open_scene(f"{shelf.address}/s.tif")
    assert {name for _, name, _ in shelf.requests} == {"s.tif"}  # no listing of the folder, no files beside it
    opening = len(shelf.requests)
    assert opening <= 3
    chip = scene.read(Window(130, 200, 100, 60))
    assert_array_equal(chip.pixels, pixels[:, 200:260, 130:230])
    assert len(shelf.requests) - opening <= 3  # 4 blocks, of which those of a row lie side by side in the file
    carried = sum(int(b) - int(a) + 1 for _, _, r in shelf.requests if r for a, b in re.findall(r"(\d+)-(\d+)", r))
    assert carried < path.stat().st_size / 2


def test_a_busy_server_is_asked_again(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    pixels, _ = large(tmp_path, "busy.tif")
    shelf.status["busy.tif"], shelf.failures["busy.tif"] = 503, 2
    scene = open_scene(f"{shelf.address}/busy.tif")
    assert_array_equal(scene.read(Window(0, 0, 10, 10)).pixels, pixels[:, :10, :10])
    assert shelf.asked["busy.tif"] >= 3


def test_a_server_that_is_busy_while_a_window_is_read_is_asked_again(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    pixels, _ = large(tmp_path, "later.tif")
    scene = open_scene(f"{shelf.address}/later.tif")
    shelf.status["later.tif"], shelf.failures["later.tif"] = 503, shelf.asked["later.tif"] + 2
    assert_array_equal(scene.read(Window(300, 300, 10, 10)).pixels, pixels[:, 300:310, 300:310])


@pytest.mark.parametrize(("status", "name"), [(404, "gone.tif"), (403, "secret.tif"), (503, "down.tif")])
def test_a_failure_names_the_address_and_the_status(shelf, monkeypatch, status, name):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    shelf.status[name] = status
    with pytest.raises(SceneError) as refusal:
        open_scene(f"{shelf.address}/{name}")
    assert f"{shelf.address}/{name}" in str(refusal.value)
    assert str(status) in str(refusal.value)


def test_a_failure_in_the_middle_names_address_window_and_status(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    pixels, _ = large(tmp_path, "breaks.tif")
    scene = open_scene(f"{shelf.address}/breaks.tif")
    shelf.status["breaks.tif"] = 503
    with pytest.raises(
        SceneError, match=r"breaks\.tif cannot be read at rows 300 to 309, columns 400 to 409"
    ) as refusal:
        scene.read(Window(400, 300, 10, 10))
    assert "HTTP error code: 503. Check the address, the network" in str(refusal.value)
    shelf.status.clear()
    assert_array_equal(scene.read(Window(400, 300, 10, 10)).pixels, pixels[:, 300:310, 400:410])  # it is back


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    with rasterio.Env(GDAL_HTTP_TIMEOUT=7):
        with network("https://example.org/s.tif"):
            assert get_gdal_config("GDAL_HTTP_TIMEOUT") == 7
            assert get_gdal_config("GDAL_HTTP_MAX_RETRY") == 9
            assert get_gdal_config("VSI_CACHE") == "TRUE"
        assert get_gdal_config("GDAL_HTTP_TIMEOUT") == 7
        assert get_gdal_config("VSI_CACHE") is None


def test_local_files_are_read_under_nobodys_options(tmp_path):
    with network(str(tmp_path / "s.tif")):
        assert all(get_gdal_config(name) is None for name in REMOTE_DEFAULTS)


@pytest.mark.parametrize(
    "path",
    [
        "https://example.org/s.tif", "http://127.0.0.1/s.tif", "s3://bucket/s.tif", "gs://bucket/s.tif", "az://box/s.tif",
        "/vsicurl/https://example.org/s.tif", "/vsis3/bucket/s.tif", "/vsizip//vsicurl/https://example.org/s.zip/s.tif",
        "zip+https://example.org/s.zip!s.tif", 'NETCDF:"/vsis3/bucket/s.nc":red',
    ],
)  # fmt: skip
def test_addresses_are_remote(path):
    assert is_remote(path)


@pytest.mark.parametrize(
    "path",
    [
        "s.tif",
        "/data/s.tif",
        "C:/data/s.tif",
        "file:///data/s.tif",
        "/vsimem/s.tif",
        "/vsizip/s.zip/s.tif",
        "HDF5:s.h5://data",
    ],
)
def test_files_here_are_not(path):
    assert not is_remote(path)
