"""The stages of gpu_report.py in the order of their worth: a run that is cut off still has the first ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from gpu_report_setting import Row, Setting


@dataclass(frozen=True)
class Stage:
    """A part of the report that runs in a process of its own.

    Attributes:
        name: What ``--stage`` takes.
        seconds: Its limit.
        module: The file that holds it.
        function: Yields its rows.
        title: Its heading.
    """

    name: str
    seconds: int
    module: str
    function: str
    title: str

    def rows(self, setting: Setting) -> Iterator[Row]:
        """Run it."""
        try:
            module = import_module(self.module)
        except ModuleNotFoundError as error:
            yield {"skipped": f"{error.name} is not here"}
            return
        run: Callable[[Setting], Iterator[Row]] = getattr(module, self.function)
        yield from run(setting)


STAGES = (
    Stage("device", 20, "gpu_report_device", "rows", "The device, and what it reaches in bare products"),
    Stage("correct", 60, "gpu_report_correct", "rows", "Every operation against float64"),
    Stage("infonce", 110, "gpu_report_losses", "infonce_rows", "InfoNCE, forward and backward"),
    Stage("step", 120, "gpu_report_steps", "step_rows", "Training steps in bf16, without dropout"),
    Stage("syncs", 30, "gpu_report_steps", "sync_rows", "Where the host waits in a step, and what it launches"),
    Stage("packed", 30, "gpu_report_steps", "packed_rows", "Gradients of packed and padded steps"),
    Stage("maxsim", 30, "gpu_report_losses", "maxsim_rows", "MaxSim, forward and backward"),
    Stage("linear", 25, "gpu_report_losses", "linear_rows", "Linear cross-entropy, forward and backward"),
    Stage("encode", 40, "gpu_report_use", "encode_rows", "Encoding texts"),
    Stage("search", 25, "gpu_report_use", "search_rows", "Exact search"),
    Stage("profile", 30, "gpu_report_steps", "profile_rows", "What a step of BERT-base spends its time on"),
    Stage("scale", 120, "gpu_report_use", "scale_rows", "Several devices"),
)  # fmt: skip
