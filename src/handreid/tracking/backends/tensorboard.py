"""A run of TensorBoard: event files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import api_pb2 as hparams
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from handreid.tracking.backends.base import Status, non_empty


class TensorBoardBackend:
    """Event files in `folder`. Entries of earlier files from `step` on are discarded."""

    def __init__(self, folder: Path, step: int) -> None:
        self.id: str | None = None
        self.where = str(folder)
        self.purged = step
        self.writer: EventFileWriter | None = None  # begins a file, and does so when there is something for it
        self.values: dict[str, Any] = {}

    def last(self) -> tuple[int, int] | None:
        return None

    def settings(self, values: Mapping[str, Any], text: str, *, again: bool) -> None:
        self.values = non_empty(values)
        if not again:
            self._add(_text("recipe", "".join(f"    {line}\n" for line in text.splitlines())), 0)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._add(Summary.Value(tag=name, simple_value=value), step)
        self._file().flush()

    def tested(self, values: Mapping[str, float], step: int) -> None:
        """Sent with the settings, for TensorBoard's HParams tab."""
        self.numbers(values, step)
        for summary in _hparams(self.values, values):
            self._add(summary, step)
        self._file().flush()

    def file(self, name: str, content: bytes) -> None:
        pass  # TensorBoard has no files; they are in the run folder

    def model(self, path: Path) -> None:
        pass

    def close(self, status: Status) -> None:
        if self.writer is not None:
            self.writer.close()

    def _add(self, value: Summary.Value, step: int) -> None:
        self._file().add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))

    def _file(self) -> EventFileWriter:
        if self.writer is None:
            self.writer = EventFileWriter(self.where)
            for event in ({"file_version": "brain.Event:2"}, {"session_log": SessionLog(status=SessionLog.START)}):
                self.writer.add_event(Event(wall_time=time.time(), step=self.purged, **event))
        return self.writer


def _text(name: str, text: str) -> Summary.Value:
    return Summary.Value(
        tag=f"{name}/text_summary",
        metadata=SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(
                plugin_name="text", content=TextPluginData(version=0).SerializeToString()
            )
        ),
        tensor=TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        ),
    )


def _hparams(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> list[Summary.Value]:
    """The settings with which the run began, their kinds, and that it ended: what the HParams tab shows a run by."""
    begun, kinds = SessionStartInfo(), []
    for name, value in settings.items():
        if isinstance(value, int | float):
            begun.hparams[name].number_value = value
            kinds.append(hparams.HParamInfo(name=name, type="DATA_TYPE_FLOAT64"))
        else:
            begun.hparams[name].string_value = str(value)
            kinds.append(hparams.HParamInfo(name=name, type="DATA_TYPE_STRING"))
    measured = [hparams.MetricInfo(name=hparams.MetricName(tag=name)) for name in metrics]
    told = {
        metadata.EXPERIMENT_TAG: {"experiment": hparams.Experiment(hparam_infos=kinds, metric_infos=measured)},
        metadata.SESSION_START_INFO_TAG: {"session_start_info": begun},
        metadata.SESSION_END_INFO_TAG: {"session_end_info": SessionEndInfo(status="STATUS_SUCCESS")},
    }
    return [
        Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(HParamsPluginData(**content)))
        for tag, content in told.items()
    ]
