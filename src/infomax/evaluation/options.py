"""Options that all protocols share: which images, on which device, how features are kept. Torch is not imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from infomax.data.options import DataOptions
from infomax.runtime.checks import check_count
from infomax.runtime.devices import check_device_name, choose_device, float64_device
from infomax.runtime.options import CheckedOptions, Shown

if TYPE_CHECKING:
    import torch

PRECISIONS = ("32", "16")


@dataclass(frozen=True, kw_only=True)
class EvaluationData(DataOptions):
    """A frozen dataclass that says which labelled images an encoder is evaluated on."""

    data: Annotated[str | None, Shown(metavar="DIR|FILE|NAME", default="what the run was trained on")] = None
    """Images with labels: a sub-folder for each class, arrays of labels, or a data set's name."""


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(CheckedOptions):
    """A frozen dataclass that says what an evaluation computes on. It changes results by rounding alone."""

    device: Annotated[str, Shown(metavar="auto|cpu|cuda|mps")] = "auto"
    """Kind of device; auto takes a CUDA GPU if there is one."""
    workers: Annotated[int | None, Shown(metavar="N", default="one a core, at most 8")] = None
    """Processes that decode image files."""
    feature_precision: Annotated[str, Shown(metavar="32|16")] = "32"
    """Bits of each value of a feature; 16 takes half the memory and disk."""
    no_cache: bool = False
    """Neither keep features on disk nor use those that are there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device_name(self.device)
        if self.workers is not None:
            check_count("--workers", self.workers, low=0)
        if self.feature_precision not in PRECISIONS:
            raise ValueError(f"--feature-precision must be 32 or 16, but is {self.feature_precision!r}")

    @property
    def network_device(self) -> "torch.device":
        """The device that networks compute and are trained on, as torch names it."""
        import torch

        return torch.device(choose_device(self.device))

    @property
    def torch_device(self) -> "torch.device":
        """The device of all else, as probes and solvers: that of networks, or the CPU beside Apple's GPU."""
        return float64_device(self.network_device)


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """A frozen dataclass that says whether an encoder is compared with its baselines."""

    no_baselines: bool = False
    """Evaluate the encoder alone, without its baselines: the initial encoder of a run with --init, the untrained
    encoder and the raw pixels."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ComputeOptions, BaselineOptions):
    """A frozen dataclass that holds the options that all protocols share, beside the encoder and the images."""

    quiet: bool = True
    """Show no progress bars."""
