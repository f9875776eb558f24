"""``geounet info``."""

from collections.abc import Mapping
from math import hypot

import click

from .shared import Talk, common, scene_options


@click.command()
@click.argument("file", nargs=-1, required=True)
@scene_options
@common
def info(talk: Talk, file: tuple[str, ...], bands: object, nodata: object, resolution: object) -> None:
    """Say what FILE is: a scene's grid and bands, or a model's bands, classes and provenance.

    \b
    geounet info scene.tif
    geounet info water
    """
    from ..nn.segmenter import bundled

    if len(file) == 1 and (file[0] in bundled() or file[0].endswith(".safetensors")):
        from ..nn.segmenter import load

        talk.say(model_card(load(file[0])))
    else:
        talk.say(scene_card(file, bands, nodata, resolution))


def scene_card(file: tuple[str, ...], bands: object = None, nodata: object = None, resolution: object = None) -> str:
    """Lines on a scene."""
    from ..inference.suitability import probe
    from .shared import open_argument

    scene = open_argument(file, bands, nodata, resolution)
    grid = scene.grid
    height, width = grid.shape
    size, step = grid.pixel_size_m, grid.transform
    lines = [
        scene.source,
        f"  size        {width} × {height} pixels, blocks of {scene.block_shape[1]} × {scene.block_shape[0]}, {scene.dtype}",
        f"  CRS         {grid.crs.to_string() if grid.crs else 'none'}",
        f"  pixel       {hypot(step.a, step.d):g} × {hypot(step.b, step.e):g} CRS units"
        + (f", {size:.4g} m" if size else ""),
        f"  bounds      {', '.join(f'{value:.10g}' for value in grid.bounds)}",
    ]
    stats = probe(scene)
    if stats.count:
        lines.append(f"  valid       {stats.valid_share:.1%} of {stats.pixels:,} pixels looked at")
        for name, values in zip(scene.bands, stats.quantiles([0.02, 0.5, 0.98]), strict=True):
            low, middle, high = (f"{float(f'{value:.2g}'):g}" for value in values)  # known to 1 %
            lines.append(f"  {name:<11} about {low} (2 %), {middle} (median), {high} (98 %)")
    else:
        lines += [f"  {name}" for name in scene.bands]
        lines.append("  no valid pixel was found where it was looked for")
    return "\n".join([*lines, *(f"  note: {note}" for note in scene.notes)])


def model_card(model: object) -> str:
    """Lines on a model."""
    from ..nn.segmenter import Segmenter

    assert isinstance(model, Segmenter)
    about = model.info
    provenance = about.provenance
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"{about.name}: {about.description}",
        f"  network     {type(model.network).__name__}, {parameters:,} parameters, hash {model.short_hash}",
        *_members(model.network, provenance.get("members")),
        f"  bands       {', '.join(band.name for band in model.bands)}" + _units(model),
        *(f"  {band.name:<11} {band.type}" for band in model.bands if band.type.typed),
        f"  pixel size  {about.pixel_size:g} m" if about.pixel_size else "  pixel size  not said",
        f"  classes     {', '.join(f'{c.code} {c.name}' for c in about.legend.classes)}",
    ]
    metrics = provenance.get("metrics")
    if isinstance(metrics, Mapping):
        lines += [f"  {split:<11} {_scores(scores)}" for split, scores in metrics.items()]
    texts = {key: provenance.get(key) for key in ("data", "licence", "citation")} | {"note": about.notes}
    return "\n".join([*lines, *(f"  {key:<11} {text}" for key, text in texts.items() if text)])


def _members(network: object, told: object) -> list[str]:
    """One line a member of an ensemble, with what the provenance tells of it."""
    rows = told if isinstance(told, list) else []
    lines = []
    for number, member in enumerate(getattr(network, "members", ())):
        parameters = sum(parameter.numel() for parameter in member.parameters())
        row = rows[number] if number < len(rows) and isinstance(rows[number], Mapping) else {}
        known = [f"{key} {str(row[key])[:12]}" for key in ("hash", "fold") if key in row]
        lines.append(
            f"  member {number:<4} {', '.join([type(member.network).__name__, f'{parameters:,} parameters', *known])}"
        )
    return lines


def _scores(scores: object) -> str:
    """Scores on one line; those that another program has written into the model, as they are."""
    match scores:
        case {"iou": Mapping() as iou, "pixels": int(pixels)} if all(isinstance(v, int | float) for v in iou.values()):
            return f"IoU {', '.join(f'{name} {value:.3f}' for name, value in iou.items())} ({pixels:,} pixels)"
    return str(scores)


def _units(model: object) -> str:
    units = sorted({band.unit for band in model.bands if band.unit})  # type: ignore[attr-defined]
    return f" ({', '.join(units)})" if units else ""
