"""``geounet models``."""

import click

from .shared import Talk, common


@click.command()
@common
def models(talk: Talk) -> None:
    """List the bundled models: bands, classes, what they were trained on, measured accuracy.

    \b
    geounet models
    geounet predict scene.tif -m water
    """
    from ..nn.segmenter import bundled, load
    from .info import model_card

    for name in bundled():
        talk.say(model_card(load(name)))
