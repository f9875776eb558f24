"""The command line: parses, calls, prints. Nothing heavy is imported before a command runs."""

from importlib import import_module

import click

from .._version import __version__

COMMANDS = {
    "predict": "Write the class of every pixel of a scene to a GeoTIFF.",
    "train": "Train a model from a config.",
    "evaluate": "Score a model on labelled scenes.",
    "polygonize": "Trace a class raster into polygons.",
    "doctor": "Look for faults in training data before time is spent on them.",
    "info": "Say what a scene or a model is.",
    "models": "List the bundled models.",
    "demo": "Walk the whole road on made-up scenes, in about a minute.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f".{cmd_name}", __name__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="geounet")
def main() -> None:
    """Class maps from georeferenced multi-band rasters.

    \b
    geounet demo                            see the whole road on made-up scenes
    geounet predict scene.tif               map water with the bundled model
    geounet train config.yaml               train on your own labels
    """
