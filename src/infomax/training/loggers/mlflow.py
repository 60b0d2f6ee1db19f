"""MLflow: a run on the server of ``MLFLOW_TRACKING_URI``, or in the file mlflow.db, which ``mlflow ui`` shows."""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infomax.runtime.extras import how_to_install
from infomax.training.loggers.tool import PROJECT, Session, State, Tool, flat, numbers

DATABASE = "mlflow.db"
"""Name of the file in the working folder, which MLflow itself takes by default."""
STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
PARAMETERS_AT_ONCE = 100
LONGEST_PARAMETER = 6000  # characters


class MlflowLogger:
    """Writes rows to a run of MLflow by its client, so that runs that the program itself has open stay as they are.

    Args:
        session: The run.
    """

    def __init__(self, session: Session):
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # which tells of each table
        uri, database = _tracking_uri(session.kept)
        self.client: Any = MlflowClient(tracking_uri=uri)
        self.run_id, self.last_step = "", 0
        if run_id := session.kept.get("run_id"):
            self._go_on(run_id)
        if not self.run_id:
            experiment = self._experiment()
            name = os.environ.get("MLFLOW_RUN_NAME") or session.name
            self.run_id = self.client.create_run(experiment, run_name=name).info.run_id
        session.keep({"run_id": self.run_id, **({"database": database} if database else {})})
        self._log_config(session.config)
        self.place = (
            f"{self.client.get_run(self.run_id).info.run_name} in {database or 'the server of MLFLOW_TRACKING_URI'}"
        )

    def _go_on(self, run_id: str) -> None:
        """Opens the run of an earlier process; another one is begun if it is not there or was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return
        if run.info.lifecycle_stage != "active":
            return
        self.run_id = run_id
        self.client.update_run(run_id, status="RUNNING")
        histories = (self.client.get_metric_history(run_id, name) for name in run.data.metrics)
        self.last_step = max((metric.step for history in histories for metric in history), default=0)

    def _experiment(self) -> str:
        """Returns the identifier of the experiment, which is made if it is not there."""
        from mlflow.exceptions import MlflowException

        if identifier := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return identifier
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if (experiment := self.client.get_experiment_by_name(name)) is not None:
            return experiment.experiment_id
        try:
            return self.client.create_experiment(name)
        except MlflowException:  # another run has made it meanwhile
            if (experiment := self.client.get_experiment_by_name(name)) is None:
                raise
            return experiment.experiment_id

    def _log_config(self, config: Mapping[str, Any]) -> None:
        """Sends the settings as parameters; one that has changed since the run began is a tag, as MLflow keeps it."""
        from mlflow.entities import Param

        texts = {key: _text(value) for key, value in flat(config).items()}
        before = self.client.get_run(self.run_id).data.params
        new = [Param(key, text) for key, text in texts.items() if key not in before]
        for start in range(0, len(new), PARAMETERS_AT_ONCE):
            self.client.log_batch(self.run_id, params=new[start : start + PARAMETERS_AT_ONCE])
        for key, text in texts.items():
            if before.get(key, text) != text:
                self.client.set_tag(self.run_id, key, text)

    def log(self, row: Mapping[str, float]) -> None:
        """Sends the numbers of a row."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(row["step"])
        metrics = [Metric(name, value, now, step) for name, value in numbers(row).items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def finish(self, state: State) -> None:
        """Sets the status FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status=STATUS[state])


def _tracking_uri(kept: Mapping[str, str]) -> tuple[str, str]:
    """Returns MLflow's address, and the file of its database if no variable names an address.

    An address may hold a password, so it is not kept in the run folder.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri, ""
    database = kept.get("database", "")
    if not database or not Path(database).is_file():
        database = str(Path(DATABASE).resolve())
    return f"sqlite:///{database}", database


def _text(value: Any) -> str:
    """Returns a setting as the text that MLflow keeps."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_PARAMETER]


MLFLOW = Tool(
    name="mlflow",
    start=MlflowLogger,
    packages=("mlflow", "sqlalchemy", "alembic"),
    install=how_to_install("mlflow"),
)
