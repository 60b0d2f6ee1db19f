"""Lists the encoders that runs have kept, to be ranked. No torch is imported, so that mistakes are said at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infomax.experiments.options import ChooseOptions
from infomax.runs.run_folder import Run, trained_steps_of
from infomax.runtime.near_names import missing_path


@dataclass(frozen=True)
class KeptEncoder:
    """A frozen dataclass that names one encoder of a run."""

    run: Run
    folder: Path
    epoch: int | None
    """Epoch, from 1, after which it was kept; None for the encoder of the whole run."""


def open_encoders(options: ChooseOptions) -> list[KeptEncoder]:
    """Returns the encoders that are to be ranked, run by run.

    Raises:
        ValueError: if there is nothing to choose from, a run is none or has no encoder yet, the runs were trained on
            different images, or too few images are to be measured.
    """
    runs = _open_runs(options.runs)
    encoders = [encoder for run in runs for encoder in _encoders(run, options.epochs)]
    if len(encoders) < 2:
        kept = "" if options.epochs else "; --epochs ranks the encoders that it kept on the way, too"
        raise ValueError(f"{runs[0].path} alone leaves nothing to choose from: name several runs{kept}")
    return encoders


def _open_runs(paths: Sequence[Path]) -> list[Run]:
    """Returns the runs, each once.

    Raises:
        ValueError: if none is named, one is none or has no encoder yet, or they were trained on different images.
    """
    runs = list({path.resolve(): Run(path) for path in paths}.values())
    if not runs:
        raise ValueError("run folders are wanted, as in infomax choose runs/*")
    for run in runs:
        if not run.path.exists():
            raise ValueError(f"{run.path} is not a run folder: {missing_path(run.path)}")
        if not (run.config and run.trained_steps):
            raise ValueError(f"{run.path} has no encoder yet; leave it out")
        if run.config["fingerprint"] != runs[0].config["fingerprint"]:
            raise ValueError(
                f"{run.path} was trained on other images than {runs[0].path}: measures compare only encoders of the "
                "same images"
            )
    return runs


def _encoders(run: Run, epochs: bool) -> Iterator[KeptEncoder]:
    """Yields the encoders of a run, the last one first; those from within the run only if ``epochs`` are wanted."""
    yield KeptEncoder(run, run.path, None)
    if epochs:
        steps = {run.trained_steps}
        for epoch in run.kept_epochs:
            if trained_steps_of(run.kept_encoder(epoch)) not in steps:  # that of the last epoch is there already
                yield KeptEncoder(run, run.kept_encoder(epoch), epoch)
