"""How a detector is trained: the settings, the schedules 1x and 2x in iterations, and learning rates. No torch here."""

from dataclasses import dataclass
from typing import Annotated

from infomax.runtime.checks import check_count, check_number, choose
from infomax.runtime.options import Shown

COCO_NAME = "coco"
"""Name of COCO 2017, whose rows stand in the columns of the published tables."""
ARCHITECTURES = ("fpn", "c4")
NORMS = ("sync", "frozen")
BOX_HEADS = ("conv", "fc")
REFERENCE_BATCH = 16
"""Images of a step that the schedules and the learning rate are for."""
REFERENCE_RATE = 0.02
ITERATIONS = {"1x": 90_000, "2x": 180_000}
DROPS = {"1x": (60_000, 80_000), "2x": (120_000, 160_000)}
"""Iterations before which the learning rate is divided by 10, of the schedules as they are."""
WARMUP = 1_000
WARMUP_START = 0.001
"""Share of the learning rate at the first iteration; it rises evenly to all of it over ``WARMUP`` iterations."""
WARMUP_SHARE = 0.1
"""Share of a short schedule that the warm-up may take."""
BOXES_PER_IMAGE = 512
TRAIN_SIDES = (640, 672, 704, 736, 768, 800)
TEST_SIDE = 800
LONGEST_SIDE = 1333
"""Longest side for a shorter side of ``TEST_SIDE``; of others in proportion."""
PRECISE_BATCHES = 200
"""Training batches by which BatchNorm's statistics are taken before a test (Detectron2's PRECISE_BN)."""
MAX_SIDE = 8_192


@dataclass(frozen=True, kw_only=True)
class DetectorSetting:
    """A frozen dataclass that says how a detector is built and trained.

    Raises:
        ValueError: naming the option, if a value is not possible.
    """

    arch: Annotated[str, Shown(metavar="fpn|c4")] = "fpn"
    """Detector: Mask R-CNN with a feature pyramid (MVEB's Table 5), or on the last stage but one, with the last stage
    as the head (MIRA's Table 13, CorInfoMax's Table 11)."""
    schedule: Annotated[str, Shown(metavar="1x|2x")] = "1x"
    """Length of the training: 90,000 or 180,000 iterations of 16 images; of another --batch-size, as many as see the
    same number of images."""
    budget: Annotated[int | None, Shown(metavar="N", default="the schedule's")] = None
    """Iterations in place of the schedule's. The row names them, and stands in no paper's column."""
    batch_size: Annotated[int, Shown(metavar="N")] = REFERENCE_BATCH
    """Images of an iteration, over all ranks."""
    micro_batch_size: Annotated[int | None, Shown(metavar="N", default="the share of a rank")] = None
    """Images that a rank passes at once, if its memory is small. BatchNorm then takes the statistics of so many."""
    learning_rate: Annotated[float | None, Shown(metavar="X", default="0.02, times --batch-size / 16")] = None
    """Learning rate after the warm-up."""
    norm: Annotated[str, Shown(metavar="sync|frozen")] = "sync"
    """BatchNorm: of all ranks and trained, in new layers too; or frozen, and none in new layers."""
    freeze: Annotated[int, Shown(metavar="N")] = 0
    """Number of the encoder's first stages that stay as they are, the stem being the first."""
    box_head: Annotated[str | None, Shown(metavar="conv|fc", default="conv; fc with --norm frozen")] = None
    """Head of --arch fpn for boxes: four convolutions and a layer, or two layers."""
    boxes_per_image: Annotated[int, Shown(metavar="N")] = BOXES_PER_IMAGE
    """Boxes of a training image that the heads learn from, a quarter of which may show an object; fewer take less time
    and memory."""
    train_sides: Annotated[tuple[int, ...], Shown(metavar="N")] = TRAIN_SIDES
    """Pixels of the shorter side of a training image, one of which is drawn each time."""
    test_side: Annotated[int, Shown(metavar="N")] = TEST_SIDE
    """Pixels of the shorter side of a test image."""
    evaluate_every: Annotated[int | None, Shown(metavar="N", default="a tenth of all")] = None
    """Iterations between two tests on all test images; there is one at the end in any case."""
    precise_batches: Annotated[int, Shown(metavar="N")] = PRECISE_BATCHES
    """Training batches whose mean statistics BatchNorm takes for a test; of one epoch at most, and 0 for its running
    means."""
    precision: Annotated[str, Shown(metavar="32|bf16")] = "32"
    """Precision of the training: float32, or bfloat16 by autocast."""
    seed: Annotated[int, Shown(metavar="N")] = 0
    """Seed of the new layers, the order of the images, and what is drawn."""

    def __post_init__(self) -> None:
        choose("--arch", self.arch, ARCHITECTURES)
        choose("--schedule", self.schedule, ITERATIONS)
        choose("--norm", self.norm, NORMS)
        choose("--precision", self.precision, ("32", "bf16"))
        if self.box_head is not None:
            choose("--box-head", self.box_head, BOX_HEADS)
            if self.arch == "c4":
                raise ValueError(f"--box-head {self.box_head} is for --arch fpn: the head of c4 is the last stage")
        for name, low in (("batch_size", 1), ("freeze", 0), ("precise_batches", 0), ("seed", 0)):
            check_count(_word(name), getattr(self, name), low=low)
        for name in ("budget", "micro_batch_size", "evaluate_every"):
            if (value := getattr(self, name)) is not None:
                check_count(_word(name), value, low=1)
        check_count("--boxes-per-image", self.boxes_per_image, low=4)
        if self.learning_rate is not None:
            check_number("--learning-rate", self.learning_rate, low=0, open_low=True)
        if not self.train_sides:
            raise ValueError("--train-sides wants one side in pixels at least")
        for word, side in (*(("--train-sides", side) for side in self.train_sides), ("--test-side", self.test_side)):
            check_count(word, side, low=32)
            check_number(word, side, low=32, high=MAX_SIDE, open_high=False)

    @property
    def iterations(self) -> int:
        """Returns the number of iterations; with other batches as many as see the same number of images."""
        return self.budget or max(1, round(ITERATIONS[self.schedule] * self._scale))

    @property
    def _scale(self) -> float:
        return REFERENCE_BATCH / self.batch_size

    @property
    def drops(self) -> tuple[int, ...]:
        """Returns the iterations at which the learning rate is divided by 10: at 2/3 and 8/9 of all."""
        full = ITERATIONS[self.schedule]
        return tuple(round(drop * self.iterations / full) for drop in DROPS[self.schedule])

    @property
    def warmup(self) -> int:
        """Returns the iterations over which the learning rate rises, a tenth of a short schedule at most."""
        return min(round(WARMUP * self._scale), round(WARMUP_SHARE * self.iterations))

    @property
    def peak_rate(self) -> float:
        """Returns the learning rate after the warm-up."""
        return self.learning_rate or REFERENCE_RATE / self._scale

    def rate(self, iteration: int) -> float:
        """Returns the learning rate of an iteration, counted from 0."""
        rate = self.peak_rate * 0.1 ** sum(iteration >= drop for drop in self.drops)
        if iteration < self.warmup:
            done = iteration / self.warmup
            rate *= WARMUP_START * (1 - done) + done
        return rate

    @property
    def test_interval(self) -> int:
        """Returns the iterations between two tests."""
        return self.evaluate_every or max(1, -(-self.iterations // 10))

    @property
    def head(self) -> str:
        """Returns the name of the head that names boxes: ``res5`` of C4; of FPN ``conv`` or ``fc``."""
        if self.arch == "c4":
            return "res5"
        return self.box_head or ("conv" if self.norm == "sync" else "fc")

    @staticmethod
    def longest_side(side: int) -> int:
        """Returns the longest side of an image whose shorter side is to be ``side``."""
        return round(side * LONGEST_SIDE / TEST_SIDE)

    @property
    def departures(self) -> tuple[str, ...]:
        """Returns what decides a result and is not as in the papers' tables, as ``batch_size 4 (16)``."""
        paper = DetectorSetting(arch=self.arch, schedule=self.schedule)
        names = ("iterations", "batch_size", "micro_batch_size", "peak_rate", "norm", "freeze", "head")
        names += ("boxes_per_image", "train_sides", "test_side", "precise_batches")
        both = ((name, getattr(self, name), getattr(paper, name)) for name in names)
        return tuple(f"{name} {_shown(ours)} ({_shown(theirs)})" for name, ours, theirs in both if ours != theirs)

    def describe(self) -> str:
        """Returns words for what is trained, how long, and at which learning rate."""
        norm = "frozen BatchNorm" if self.norm == "frozen" else "BatchNorm over all ranks"
        drops = " and ".join(f"{drop:,}" for drop in self.drops)
        scaled = "" if self.learning_rate or self.batch_size == REFERENCE_BATCH else ", in proportion to the batch"
        sides = f"{min(self.train_sides)}" + (f" to {max(self.train_sides)}" if len(set(self.train_sides)) > 1 else "")
        budget = f" (--budget; {self.schedule} has {ITERATIONS[self.schedule]:,} of 16)" if self.budget else ""
        length = f"{self.iterations:,} iterations of {self.batch_size} images{budget}"
        rate = f"learning rate {self.peak_rate:g}{scaled}, divided by 10 at {drops}"
        return (
            f"trains Mask R-CNN, {self.arch} with the head {self.head}, for {length}; {norm}; {rate}; "
            f"shorter side {sides}, tested at {self.test_side}"
        )


def _word(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: object) -> str:
    """Returns a value of a setting in words."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "all" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
