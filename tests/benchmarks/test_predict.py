"""The engine beside the bare network, and its memory beside the scene's size."""

import pytest

PREDICT = """
import sys
from geounet import predict
mask = predict(sys.argv[1], sys.argv[2], force=True).to_geotiff(sys.argv[3], overwrite=True)
result = {"seconds": dict(mask.seconds), "pixels": dict(mask.pixels)}
"""

BARE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import geounet
from geounet.inference import predict
prediction = predict(sys.argv[1], sys.argv[2], force=True)
chips = [prediction.scene.read(prediction.tiling.window(*key)) for key in prediction.tiling.keys()]
fill = prediction.model.mean.numpy()
batches = [chip.filled(fill)[None] for chip in chips if chip.valid.any()]
forward = prediction.forward
with ThreadPoolExecutor(forward.streams) as pool:
    list(pool.map(forward, batches[:4]))
    began = time.perf_counter()
    for _ in pool.map(forward, batches):
        pass
result = {"seconds": time.perf_counter() - began, "windows": len(batches), "backend": forward.backend,
          "precision": forward.precision, "streams": forward.streams}
"""


def test_peak_memory_does_not_grow_with_the_scene(
    large_scene, model_path, in_a_process, tmp_path, timed, benchmark, monkeypatch
):
    small, large = (4096, 10240) if timed else (1536, 3072)
    if not timed:  # small scenes would not fill the cache of decoded blocks, which is bounded by itself
        monkeypatch.setenv("GDAL_CACHEMAX", "32")
    peaks = {
        size: in_a_process(PREDICT, large_scene(size), model_path, tmp_path / "mask.tif")["peak_mb"]
        for size in (small, large)
    }
    benchmark.extra_info |= {f"peak MB at {size}²": round(peak) for size, peak in peaks.items()}
    benchmark.extra_info["ratio"] = round(peaks[large] / peaks[small], 3)
    benchmark.pedantic(lambda: None, rounds=1)
    assert peaks[large] <= 1.15 * peaks[small]


def test_the_whole_road_beside_the_bare_network(large_scene, model_path, in_a_process, tmp_path, timed, benchmark):
    size = 4096 if timed else 1024
    scene = large_scene(size)
    bare = in_a_process(BARE, scene, model_path)
    whole = benchmark.pedantic(
        in_a_process, args=(PREDICT, scene, model_path, tmp_path / "mask.tif"), rounds=3 if timed else 1
    )
    benchmark.extra_info |= {f"bare {key}": value for key, value in bare.items()}
    benchmark.extra_info |= {f"busy {stage}": value for stage, value in whole["seconds"].items()}
    benchmark.extra_info["whole / bare network"] = round(whole["seconds"]["whole"] / bare["seconds"], 2)
    assert sum(whole["pixels"].values()) == size**2
    assert whole["pixels"]["nodata"] == pytest.approx(2 * (size // 5) ** 2 / 2, rel=0.02)
