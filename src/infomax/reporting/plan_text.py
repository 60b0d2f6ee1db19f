"""Formats a plan as text for a terminal."""

from infomax.planning.plan import Machine, Plan
from infomax.recipes.building import describe_trained
from infomax.reporting.tables import make_table
from infomax.runtime.durations import duration, duration_range
from infomax.runtime.threads import LEAST_BUSY, cores_to_run_on
from infomax.training.image_size import describe_larger_sizes


def plan_text(planned: Plan) -> str:
    """Formats a plan: what is trained, what it costs, and how long it takes here and on GPUs."""
    recipe, cost, memory, sent = planned.recipe, planned.cost, planned.cost.memory, planned.cost.communication
    per_image = cost.flops / cost.images
    views = f"{len(recipe.views.global_crops)} views of {recipe.views.global_crops[0].size} pixels"
    if recipe.views.local_crops:
        views += f" and {len(recipe.views.local_crops)} of {recipe.views.local_crops[0].size}"
    tensors = {"weights": memory.weights, "gradients": memory.gradients, "optimiser": memory.optimizer}
    tensors[f"{cost.micro_batch_size} images on their way"] = memory.activations
    left_out = recipe.describe_left_out(planned.images)
    rows = {
        "recipe": f"{recipe.method.name}, {recipe.name}: {recipe.encoder.backbone}, {views}, "
        f"{recipe.batch_size} images a step, precision {recipe.precision}",
        "data": f"{planned.data}, {planned.images:,} images" + ("" if planned.opened else ", which were not opened"),
        "steps": f"{planned.steps:,}: {recipe.epochs} epochs of {planned.steps_per_epoch:,}; "
        f"{planned.steps * recipe.batch_size:,} images" + (f"; {left_out}" if left_out else ""),
        "FLOPs": f"{_si(planned.flops)}: {_si(per_image)} an image, {_si(cost.flops)} a step on each device",
        "memory": f"{_si(memory.peak)}B on each device at most: {_format_sizes(tensors)}",
        "sent": f"{_si(sent.total)}B a step by each of {planned.devices} devices: "
        f"{_format_sizes({'gradients': sent.gradients, 'BatchNorm': sent.norms, 'loss': sent.loss})}",
    }
    if (trained := describe_trained(recipe)) is not None:
        rows["encoder"] = trained
    if planned.devices == 1:
        del rows["sent"]
    if planned.this_machine is not None:
        rows[planned.this_machine.name] = _format_measured(planned.this_machine, planned)
    if planned.side is not None and (line := _larger_sizes(planned, planned.side)) is not None:
        rows["pixels"] = line
    width = max(map(len, rows)) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows.items()]
    if planned.this_machine is None or any(gpu.seconds for gpu in planned.gpus):
        cells = [_machine_row(gpu) for gpu in planned.gpus]
        columns = [f"on {planned.devices}", "memory", "time, estimated"]
        lines += ["", make_table(columns, cells, notes=_source_of_times(planned)).text()]
    return "\n".join(lines)


def _larger_sizes(planned: Plan, side: int) -> str | None:
    """Returns a line on images that have far more pixels than their views; None if there is nothing to say."""
    machine = planned.this_machine
    seconds = machine.seconds[0] if machine is not None and machine.seconds is not None else None
    return describe_larger_sizes(planned.recipe, side, seconds=seconds, unknown="")


def misfit_text(planned: Plan) -> str:
    """Formats what to do about the machines that the run does not fit; empty if it fits all it was planned for."""
    lines, needed = [], _si(planned.cost.memory.peak)
    for machine in planned.misfits:
        if machine.missing_precision:
            lines.append(f"{machine.name} has no {machine.missing_precision}; --precision 16 or 32 may do")
            continue
        cure = "no --micro-batch-size helps: lower --image-size, or take a smaller --backbone"
        if machine.micro_batch_size is not None:
            cure = (
                f"--micro-batch-size {machine.micro_batch_size}, the largest that fits, keeps the gradient of the "
                "whole batch"
            )
        room = f"of its {_si(machine.memory)}B about {_si(machine.usable)}B can hold them"
        lines.append(f"{machine.name} is too small: {needed}B of tensors, and {room}; {cure}")
    return ". ".join(lines)


def _format_measured(machine: Machine, planned: Plan) -> str:
    """Formats the time on this machine, and how it was measured."""
    timing, cost = machine.timing, planned.cost
    if timing is None or machine.seconds is None:
        return f"does not fit its {_si(machine.memory)}B"
    step = f"{duration(timing.seconds_per_step)} a step"
    measurement = f"measured on {timing.steps} of them"
    if timing.images < cost.images:
        measurement = f"put together from {timing.steps} steps of {timing.images} images and the loss of {cost.images}"
    if machine.busy_cores >= LEAST_BUSY:
        measurement += f" while other processes kept {machine.busy_cores:.1f} of {cores_to_run_on()} cores busy"
    reading = f", {duration(timing.reading_seconds)} to read its images" if timing.reading_seconds else ""
    if duration(timing.later_reading_seconds) != duration(timing.reading_seconds):
        reading += f" in the first epoch and {duration(timing.later_reading_seconds)} later, as they are kept"
    scoring = f"; {duration(timing.scoring_seconds)} for the scores on the way" if timing.scoring_seconds else ""
    return f"about {duration(machine.seconds[0])}: {step}, {measurement}{reading}{scoring}"


def _machine_row(machine: Machine) -> list[str]:
    """Returns a row of the table of GPUs: name, memory and time."""
    time = "not known"
    if machine.missing_precision:
        time = f"has no {machine.missing_precision}"
    elif not machine.fits:
        time = "does not fit"
    elif machine.seconds is not None:
        time = f"about {duration_range(*machine.seconds)}"
    return [machine.name, f"{machine.memory / 1e9:.0f} GB", time]


def _source_of_times(planned: Plan) -> list[str]:
    """Returns notes on what the times on GPUs are computed from."""
    if planned.recipe.encoder.backbone == "small":
        return ["A GPU waits for a network as small as this: how long it takes there is not known."]
    if not planned.utilizations:
        return []
    shares = sorted(run.share for run in planned.utilizations)
    share = " to ".join(dict.fromkeys(f"{100 * share:.0f}" for share in (shares[0], shares[-1])))
    runs = sorted({f"{run.source}, {run.hardware}" for run in planned.utilizations})
    return [
        "Estimated, not measured: infomax itself has not been timed on these. A step's FLOPs and the bytes that it "
        "moves are counted, and taken at the rates of the data sheets.",
        f"Of these rates the papers' own runs on such images reached {share} % ({'; '.join(runs)}).",
    ]


def _format_sizes(parts: dict[str, int]) -> str:
    """Formats sizes in bytes by their names."""
    return ", ".join(f"{name} {_si(size)}B" for name, size in parts.items())


def _si(x: float) -> str:
    """Formats a number with three digits and a prefix, as 4.1 G."""
    power = min(max(int(f"{x:.2e}".split("e")[1]) // 3, 0), 7)
    return f"{x / 1000**power:.3g} {' kMGTPEZ'[power]}".rstrip() + ("" if power else " ")
