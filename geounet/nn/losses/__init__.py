"""How far logits are from labels: losses of pixels, of regions and of borders, and their weighted sums.

All take logits (N, K, H, W) and labels (N, H, W), leave out the pixels of `ignore_index`, with a gradient of exactly
zero, and read a single channel (K = 1) as the sigmoid of class 1 against class 0.
"""

from .borders import border_weights as border_weights
from .entropy import border_cross_entropy as border_cross_entropy
from .entropy import cross_entropy as cross_entropy
from .entropy import focal_loss as focal_loss
from .regions import dice_loss as dice_loss
from .regions import generalised_dice_loss as generalised_dice_loss
from .regions import lovasz_softmax as lovasz_softmax
from .regions import tversky_loss as tversky_loss
from .sums import LOSSES as LOSSES
from .sums import DiceCrossEntropy as DiceCrossEntropy
from .sums import WeightedSum as WeightedSum
