"""Unfinished runs: what they take, and how to be rid of old ones."""

from comfy_api.latest import io, ui

from .host.unfinished_runs import list_and_remove
from .types import CATEGORY


class UnfinishedRuns(io.ComfyNode):
    """Lists what interrupted jobs have left, and removes it if asked to."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkUnfinishedRuns",
            display_name="InfiniteTalk Unfinished Runs",
            category=CATEGORY,
            description="Lists the jobs that were begun and not finished, with the disk space that they take. They "
            "wait to be continued; this node removes those that wait for too long.",
            inputs=[
                io.Int.Input(
                    "older_than_days",
                    default=30,
                    min=1,
                    max=3650,
                    tooltip="Only runs that nothing was written to for so many days count as old.",
                ),
                io.Boolean.Input(
                    "remove_old",
                    default=False,
                    tooltip="Removes the old ones when the node runs. Never one that is being made, and never a video "
                    "file. Off: they are only listed.",
                ),
            ],
            outputs=[io.String.Output("report", display_name="report")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, older_than_days: int, remove_old: bool) -> float:
        """Never the same: looked at anew each time."""
        return float("nan")

    @classmethod
    def execute(cls, older_than_days: int, remove_old: bool) -> io.NodeOutput:
        """Look."""
        report = list_and_remove(max(older_than_days, 1), remove_old)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
