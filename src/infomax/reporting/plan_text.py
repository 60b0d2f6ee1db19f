"""Formats a plan as text for a terminal."""

from infomax.planning.plan import Machine, Plan
from infomax.reporting.tables import make_table


def plan_text(planned: Plan) -> str:
    """Formats a plan: what is trained, what it costs, and how long it takes here and on GPUs."""
    recipe, cost, memory, sent = planned.recipe, planned.cost, planned.cost.memory, planned.cost.communication
    per_image = cost.flops / cost.images
    views = f"{len(recipe.views.global_crops)} views of {recipe.views.global_crops[0].size} pixels"
    if recipe.views.local_crops:
        views += f" and {len(recipe.views.local_crops)} of {recipe.views.local_crops[0].size}"
    tensors = {"weights": memory.weights, "gradients": memory.gradients, "optimiser": memory.optimizer}
    tensors[f"{cost.micro_batch_size} images on their way"] = memory.activations
    rows = {
        "recipe": f"{recipe.method.name}, {recipe.name}: {recipe.encoder.backbone}, {views}, "
        f"{recipe.batch_size} images a step, precision {recipe.precision}",
        "data": f"{planned.data}, {planned.images:,} images" + ("" if planned.opened else ", which were not opened"),
        "steps": f"{planned.steps:,}: {recipe.epochs} epochs of {planned.steps_per_epoch:,}; "
        f"{planned.steps * recipe.batch_size:,} images",
        "FLOPs": f"{_si(planned.flops)}: {_si(per_image)} an image, {_si(cost.flops)} a step on each device",
        "memory": f"{_si(memory.peak)}B on each device at most: {_format_sizes(tensors)}",
        "sent": f"{_si(sent.total)}B a step by each of {planned.devices} devices: "
        f"{_format_sizes({'gradients': sent.gradients, 'BatchNorm': sent.norms, 'loss': sent.loss})}",
    }
    if planned.devices == 1:
        del rows["sent"]
    if planned.this_machine is not None:
        rows[planned.this_machine.name] = _format_measured(planned.this_machine, planned)
    width = max(map(len, rows)) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows.items()]
    if planned.this_machine is None or any(gpu.seconds for gpu in planned.gpus):
        cells = [_machine_row(gpu) for gpu in planned.gpus]
        columns = [f"on {planned.devices}", "memory", "time, estimated"]
        lines += ["", make_table(columns, cells, notes=_source_of_times(planned)).text()]
    return "\n".join(lines)


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
    reading = f", {duration(timing.reading_seconds)} to read its images" if timing.reading_seconds else ""
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


UNITS = (
    ("years", 2 * 365 * 86400, 365 * 86400),
    ("days", 2 * 86400, 86400),
    ("h", 3600, 3600),
    ("min", 60, 60),
    ("s", 1, 1),
    ("ms", 0, 0.001),
)
"""Units of time: the name, the shortest time that is given in it, in seconds, and its own length in seconds."""


def duration(seconds: float) -> str:
    """Formats a time with two digits, in the largest unit that it fills."""
    unit, size = _unit(seconds)
    return f"{_digits(seconds / size, 2)} {unit}"


def duration_range(low: float, high: float) -> str:
    """Formats a range of estimated times, in seconds, as "2 to 5 h": with one digit below ten, and two above."""
    unit, size = _unit(high)
    if low < size:
        low_unit, low_size = _unit(low)
        return f"{_digits(low / low_size, 1)} {low_unit} to {_digits(high / size, 1 if high < 10 * size else 2)} {unit}"
    low_text, high_text = (_digits(x, 1 if x < 10 else 2) for x in (low / size, high / size))
    return f"{low_text} to {high_text} {unit}" if low_text != high_text else f"{high_text} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    """Returns the largest unit that a time fills, and its length in seconds."""
    return next((unit, size) for unit, shortest, size in UNITS if seconds >= shortest)


def _digits(x: float, count: int) -> str:
    """Formats a number with so many significant digits, without an exponent."""
    return f"{float(f'{x:.{count - 1}e}'):,.10g}"
