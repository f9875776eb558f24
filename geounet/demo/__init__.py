"""The whole road in about a minute, on made-up scenes: train, map, score, trace, draw."""

from .tour import DemoResult as DemoResult
from .tour import run as run
