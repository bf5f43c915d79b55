"""Every deliberate failure of modelserve, drawn as one tree.

    ModelServeError
    ├── InputError                    what was given to a call does not fit it (also a ValueError)
    │   ├── SignatureError            predict: wrong names, shapes or dtypes
    │   ├── InvalidScaleError         scale: counts that make no sense
    │   └── PlanError                 optimize: a plan or its data that make no sense
    ├── ConversionError
    │   ├── UnsupportedSourceError    no converter knows this object, or its route is closed
    │   ├── ExampleRequiredError      the source does not say what it takes
    │   └── UnfaithfulError           the converted model does not answer as its source does
    ├── OptimizationError             a pass could not do what was asked
    ├── BundleError
    │   ├── DamagedBundleError        a digest does not match, a file is missing
    │   ├── ForeignBundleError        not a bundle, or one that reaches out of its folder
    │   └── NewerBundleError          made by a newer modelserve
    ├── ConfigError
    │   └── UnknownTargetError
    ├── PluginError
    │   ├── UnknownBackendError
    │   └── MissingExtraError         known, but its packages are not installed
    ├── ImageError                    the runtime's container image could not be made
    │   └── RegistryError             a registry refused, or could not be reached
    ├── WireError                     bytes that are not a message
    ├── DatasetError                  a run over a data set could not go on
    │   ├── SourceError               no rows there, a file that cannot be read, columns that change on the way
    │   ├── SinkError                 a part could not be written; the parts before it stay
    │   ├── ResumeError               the folder holds the parts of another run
    │   ├── FolderInUseError          another run writes into the folder
    │   └── TooManyFailuresError      more rows failed than max_failures allows
    ├── PredictionError
    │   ├── ModelRunError             the model itself refused these inputs
    │   ├── PoisonedRequestError      workers die whenever they run this request
    │   └── DeadlineError             no answer in time (also a TimeoutError)
    └── BackendError
        ├── DeploymentNotFoundError
        ├── AccessDeniedError         no key, a wrong one, or one that may not do this
        ├── NotReadyError             there, but not loaded yet; try again
        ├── DeploymentClosedError     a call after close
        ├── ModelChangedError         made for a model that another has replaced; make it again
        ├── NotSupportedError         this place cannot do that
        ├── OverloadedError           too much in flight; try again
        ├── WorkerStartError          a worker process could not load the model
        ├── OutOfMemoryError          no memory for another worker or request (also a MemoryError)
        ├── ForkedProcessError        a forked child used its parent's deployment
        ├── PreflightError            refused before anything was created or billed
        ├── QuotaError                the account may not have that much, or the cloud has no room for it
        └── StartError                the cloud could not bring the model up; the message ends with its log

Each class has a stable `code` for programs and `retryable`, which says whether the same call can succeed later.
"""

from __future__ import annotations

from typing import ClassVar


class ModelServeError(Exception):
    """Something modelserve refuses or could not do; the message says what to do about it."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class InputError(ModelServeError, ValueError):
    """What was given to a call does not fit it."""

    code = "input"


class SignatureError(InputError):
    """Inputs or outputs whose names, shapes or dtypes are not the model's."""

    code = "signature"


class InvalidScaleError(InputError):
    """Replica counts that make no sense."""

    code = "invalid_scale"


class PlanError(InputError):
    """An optimisation plan, or data for one, that makes no sense."""

    code = "plan"


class ConversionError(ModelServeError):
    """A source could not be made portable."""

    code = "conversion"


class UnsupportedSourceError(ConversionError):
    """No converter knows this object, or the only route for it is closed here."""

    code = "unsupported_source"


class ExampleRequiredError(ConversionError):
    """The source does not say what it takes; an example input is needed."""

    code = "example_required"


class UnfaithfulError(ConversionError):
    """The converted model does not answer as its source does."""

    code = "unfaithful"


class OptimizationError(ModelServeError):
    """A pass could not do what was asked of it."""

    code = "optimization"


class BundleError(ModelServeError):
    """A bundle cannot be used."""

    code = "bundle"


class DamagedBundleError(BundleError):
    """A file of the bundle is missing or is not what its digest says."""

    code = "damaged_bundle"


class ForeignBundleError(BundleError):
    """Not a bundle, or one that reaches out of its folder."""

    code = "foreign_bundle"


class NewerBundleError(BundleError):
    """A bundle in a format that only a newer modelserve reads."""

    code = "newer_bundle"


class ConfigError(ModelServeError):
    """The configuration cannot be read or does not say what is needed."""

    code = "config"


class UnknownTargetError(ConfigError):
    """No target of that name is configured."""

    code = "unknown_target"


class PluginError(ModelServeError):
    """A backend or converter could not be loaded."""

    code = "plugin"


class UnknownBackendError(PluginError):
    """No installed package offers a backend of that name."""

    code = "unknown_backend"


class MissingExtraError(PluginError):
    """Known, but the packages that it needs are not installed."""

    code = "missing_extra"


class ImageError(ModelServeError):
    """The runtime's container image could not be made."""

    code = "image"


class RegistryError(ImageError):
    """A registry of images refused, or could not be reached."""

    code = "registry"


class WireError(ModelServeError):
    """Bytes that are not a message of this protocol."""

    code = "wire"


class DatasetError(ModelServeError):
    """A run over a data set could not go on; what it committed stays, and the same call goes on from there."""

    code = "dataset"


class SourceError(DatasetError):
    """Rows that are not there, cannot be read, or change their columns on the way."""

    code = "source"


class SinkError(DatasetError):
    """A part could not be written."""

    code = "sink"


class ResumeError(DatasetError):
    """The folder holds the parts of another run, or of none."""

    code = "resume"


class FolderInUseError(DatasetError):
    """Another run writes into the folder."""

    code = "folder_in_use"
    retryable = True


class TooManyFailuresError(DatasetError):
    """More rows failed than were allowed to."""

    code = "too_many_failures"


class PredictionError(ModelServeError):
    """A request got no answer."""

    code = "prediction"


class ModelRunError(PredictionError):
    """The model itself refused these inputs."""

    code = "model_run"


class PoisonedRequestError(PredictionError):
    """Workers die whenever they run this request."""

    code = "poisoned_request"


class DeadlineError(PredictionError, TimeoutError):
    """No answer before the deadline."""

    code = "deadline"
    retryable = True


class BackendError(ModelServeError):
    """The place that runs the model could not do what was asked."""

    code = "backend"


class DeploymentNotFoundError(BackendError):
    """No deployment of that name exists there."""

    code = "deployment_not_found"


class AccessDeniedError(BackendError):
    """No key was shown, a wrong one, or one that may not do this."""

    code = "access_denied"


class NotReadyError(BackendError):
    """There, but not loaded yet; the same call can succeed later."""

    code = "not_ready"
    retryable = True


class DeploymentClosedError(BackendError):
    """The deployment was closed before this call."""

    code = "deployment_closed"


class ModelChangedError(BackendError):
    """A request that was made for a model which another one has replaced."""

    code = "model_changed"
    retryable = True


class NotSupportedError(BackendError):
    """This place cannot do that; the message names what it can."""

    code = "not_supported"


class OverloadedError(BackendError):
    """Too much is in flight; the same call can succeed later."""

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerStartError(BackendError):
    """A worker process could not start or could not load the model."""

    code = "worker_start"


class OutOfMemoryError(BackendError, MemoryError):
    """No memory for another worker or request."""

    code = "out_of_memory"


class ForkedProcessError(BackendError):
    """A forked child used a deployment that belongs to its parent."""

    code = "forked_process"


class PreflightError(BackendError):
    """Refused by a check before anything was created or billed."""

    code = "preflight"


class QuotaError(BackendError):
    """The account may not have that much there, or the cloud has no room for it now."""

    code = "quota"


class StartError(BackendError):
    """The cloud could not bring the model up; what the containers wrote stands in the message."""

    code = "start"


def by_code(code: str) -> type[ModelServeError]:
    """The class that carries `code`; `ModelServeError` for a code of a newer version."""
    return _BY_CODE.get(code, ModelServeError)


def _tree(root: type[ModelServeError]) -> dict[str, type[ModelServeError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE = _tree(ModelServeError)
