"""What was trained, bundled with what it takes to use it rightly, and the file it is kept in."""

from ..architectures import ARCHITECTURES as ARCHITECTURES
from .info import BandInfo as BandInfo
from .info import ModelInfo as ModelInfo
from .joining import ensemble as ensemble
from .loading import bundled as bundled
from .loading import load as load
from .model import Segmenter as Segmenter
