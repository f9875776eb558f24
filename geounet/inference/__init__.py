"""Walk a scene through a network."""

from .prediction import Mask as Mask
from .prediction import Prediction as Prediction
from .prediction import Strip as Strip
from .prediction import choose_model as choose_model
from .prediction import predict as predict
