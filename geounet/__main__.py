"""``python -m geounet``."""

from .cli import main

main(prog_name="geounet")
