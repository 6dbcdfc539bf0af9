"""From a stream of images to a stream of records: decode ahead, batch, adapt, write, resume."""

from tpt.streaming.pipeline import stream
from tpt.streaming.records import Adaptation, Failure, Prediction, Record

__all__ = ["Adaptation", "Failure", "Prediction", "Record", "stream"]
