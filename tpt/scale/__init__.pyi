from .cluster import Pool as Pool
from .cluster import connect as connect
from .job import predict as predict
from .predictor import Predictor as Predictor
