"""U-Nets whose way down is a network that others have trained, and how its first layer meets other bands."""

from .network import EncoderUNet as EncoderUNet
from .network import parameter_groups as parameter_groups
from .stem import Share as Share
from .stem import channel_names as channel_names
from .stem import shares as shares
