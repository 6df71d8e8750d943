"""Node that lists unfinished runs with their disk use and removes old ones."""

from comfy_api.latest import io, ui

from .host.sampling.unfinished_runs import list_and_remove
from .inputs import checked
from .types import CATEGORY, search_aliases


class UnfinishedRuns(io.ComfyNode):
    """List the runs of interrupted jobs and remove old ones if requested."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkUnfinishedRuns",
            display_name="InfiniteTalk Unfinished Runs",
            category=CATEGORY,
            **search_aliases("resume", "clean up", "disk space"),
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
    def fingerprint_inputs(cls, **inputs) -> float:
        """Return NaN, which never compares equal, so that the node always runs."""
        return float("nan")

    @classmethod
    @checked
    def execute(cls, older_than_days: int, remove_old: bool) -> io.NodeOutput:
        """List the runs, remove old ones if requested, and return the report."""
        report = list_and_remove(older_than_days, remove_old)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
