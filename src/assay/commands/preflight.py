"""What the workflow checks before the first job: can each training that is due be built?"""

import json
import subprocess
import sys

from assay.runs import identity
from assay.study.plan import Plan

STAGES = ("pretrain", "finetune")


def run(plan: Plan, folders: list[str]) -> dict[str, list[str]]:
    """Build the network of each training that is due, on the meta device, in another process.

    Args:
        plan: of the study.
        folders: of the runs that are due; those of other stages are ignored.

    Returns:
        Why trainings cannot start -> their names, such as `finetune/scratch`. Empty if all can, or
        if the check itself fails: it is a help, not a condition.
    """
    due = [folder for folder in folders if plan.by_folder[folder].stage in STAGES]
    if len(due) < 2:  # a single training reports its own error just as early
        return {}
    command = [sys.executable, "-m", "assay.jobs.launch", "commands.meta_build"]
    request = identity.canonical({"study": plan.report_settings, "folders": due})
    done = subprocess.run(command, input=request, capture_output=True, text=True)
    return {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
