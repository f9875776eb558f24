"""The sampler beside bare rasterio and torchgeo: random chips of one large scene, measured in turns."""

from importlib.util import find_spec
from statistics import median

PLAN = """
import sys, time
import numpy as np
scene, count, chip = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
size = int(sys.argv[4])
places = np.random.default_rng(0).integers(0, size - chip + 1, (count, 2)).tolist()
"""

RASTERIO = (
    PLAN
    + """
from concurrent.futures import ThreadPoolExecutor
import rasterio
from rasterio.windows import Window
def read(some):
    with rasterio.open(scene) as dataset:
        return sum(int(dataset.read(window=Window(x, y, chip, chip))[0, 0, 0]) for y, x in some)
began = time.perf_counter()
with ThreadPoolExecutor(2) as pool:
    total = sum(pool.map(read, [places[0::2], places[1::2]]))
result = {"rate": count / (time.perf_counter() - began), "sum": total}
"""
)

TORCHGEO = (
    PLAN
    + """
import os, warnings
warnings.filterwarnings("ignore")
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler
class Scene(RasterDataset):
    filename_glob = os.path.basename(scene)
data = Scene(paths=os.path.dirname(scene))
torch.manual_seed(0)
loader = DataLoader(data, batch_size=16, sampler=RandomGeoSampler(data, size=chip, length=count),
                    collate_fn=stack_samples, num_workers=int(sys.argv[5]))
began = time.perf_counter()
chips = sum(len(batch["image"]) for batch in loader)
result = {"rate": chips / (time.perf_counter() - began)}
"""
)

GEOUNET = (
    PLAN
    + """
import dask
from rasterio.windows import Window
from geounet.raster.sampler import MemoryStore, Pair, Sample, cached, read_batches
from geounet.raster.scene import open_scene
plan = [Sample(0, Window(x, y, chip, chip)) for y, x in places]
def epoch(pair):
    began = time.perf_counter()
    total = 0.0
    for batch in read_batches([pair], plan, 16):
        total += float(np.nan_to_num(batch.image[:, 0, 0, 0], nan=-9999).sum())
    return {"rate": count / (time.perf_counter() - began), "sum": total}
opened = open_scene(scene)
with dask.config.set(num_workers=2):
    if sys.argv[5] == "cold":
        result = epoch(Pair(opened))
    else:
        kept = Pair(cached(opened, MemoryStore(2**31)))
        epoch(kept)
        result = epoch(kept)
"""
)


def test_random_chips_beside_rasterio_and_torchgeo(large_scene, in_a_process, timed, benchmark):
    size, count, chip, rounds = (10240, 2000, 256, 3) if timed else (1024, 20, 128, 1)
    scene = large_scene(size)
    runs = {
        "rasterio, 2 threads": (RASTERIO,),
        "geounet, cold": (GEOUNET, "cold"),
        "geounet, from cache": (GEOUNET, "cached"),
    }
    if timed and find_spec("torchgeo"):
        runs |= {f"torchgeo, {workers} workers": (TORCHGEO, workers) for workers in (0, 2)}
    found = {name: [] for name in runs}
    for _ in range(rounds):  # in turns, as the machine may be busier at one time than at another
        for name, (code, *options) in runs.items():
            found[name].append(in_a_process(code, scene, count, chip, size, *options))
    assert len({run["sum"] for done in found.values() for run in done if "sum" in run}) == 1
    rates = {name: [run["rate"] for run in done] for name, done in found.items()}

    def ratio(ours, *peers):
        """Median over the rounds of our rate to the best of the peers' in the same round."""
        return median(mine / max(theirs) for mine, *theirs in zip(rates[ours], *(rates[p] for p in peers), strict=True))

    benchmark.extra_info |= {f"{name}, chips/s": [round(rate, 1) for rate in values] for name, values in rates.items()}
    benchmark.extra_info |= {
        f"{name}, peak MB": round(max(run["peak_mb"] for run in done)) for name, done in found.items()
    }
    ratios = {"cold / rasterio": (ratio("geounet, cold", "rasterio, 2 threads"), 0.9)}
    if peers := [name for name in runs if name.startswith("torchgeo")]:
        ratios["cold / torchgeo"] = ratio("geounet, cold", *peers), 3
        ratios["from cache / torchgeo"] = ratio("geounet, from cache", *peers), 10
    benchmark.extra_info |= {name: round(value, 2) for name, (value, _) in ratios.items()}
    benchmark.pedantic(lambda: None, rounds=1)
    if timed:
        short = {name: round(value, 2) for name, (value, least) in ratios.items() if value < least}
        assert not short, short
