"""A whole data set through anything that predicts: bounded memory, progress, resume."""

from modelserve.dataset.predictor import Predictor
from modelserve.dataset.prepare import Options
from modelserve.dataset.report import Progress, Report
from modelserve.dataset.run import predict_dataset

__all__ = ["Options", "Predictor", "Progress", "Report", "predict_dataset"]
