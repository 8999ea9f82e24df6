from graphed import graph_device
from tape import tape

__all__ = ["graph_device", "tape"]
