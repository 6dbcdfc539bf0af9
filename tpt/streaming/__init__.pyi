from .pipeline import stream as stream
from .records import Adaptation as Adaptation
from .records import Failure as Failure
from .records import Prediction as Prediction
from .records import Record as Record
