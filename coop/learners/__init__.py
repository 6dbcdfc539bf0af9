"""The methods: one file each, all with the interface of `coop.learners.base`."""

from coop.learners.base import Batch, Learner, Loss
from coop.learners.cocoop import CoCoOp
from coop.learners.coop import CoOp
from coop.learners.e2mim import E2MIM, E2MIMSettings
from coop.learners.kgcoop import KgCoOp

__all__ = ["E2MIM", "Batch", "CoCoOp", "CoOp", "E2MIMSettings", "KgCoOp", "Learner", "Loss"]
