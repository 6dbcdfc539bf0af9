"""From a stream of images to a stream of records: decode ahead, batch, adapt, write, resume."""

from tpt.runtime.records import Adaptation, Failure, Prediction, Record
from tpt.runtime.streaming import stream

__all__ = ["Adaptation", "Failure", "Prediction", "Record", "stream"]
