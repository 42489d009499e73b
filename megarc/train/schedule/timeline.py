"""When everything happens in a run: worked out once, from its configuration and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from megarc.data import Shapes
from megarc.train.config import RunConfig
from megarc.train.run_position import Standing
from megarc.train.schedule.batch_schedule import BatchSchedule, Interval
from megarc.train.schedule.learning_rate import LearningRate, learning_rate
from megarc.train.schedule.lengths import Lengths
from megarc.train.schedule.widths import Widths, widths_of


@dataclass(frozen=True, slots=True)
class Timeline:
    """The steps of a run, and what is due after which. Step t = 0, 1, ... is the (t + 1)th optimizer step.

    It is made at the start, when data and ranks are known, and again with what a checkpoint says; whoever
    needs a length, a rate or an interval gets it from here.

    Attributes:
        total: optimizer steps of the whole run.
        last: steps after which this job ends: ``total``, or fewer where ``until`` says so.
        batches: the samples of each step.
        learning_rate: of step t.
        widths: of a nested model, that step t trains.
        logging: between lines of metrics.
        heldout: between held-out losses; None: no held-out data.
        tasks: between scores on tasks; None: no tasks.
        checkpoint: between checkpoints that all ranks share.
        local_checkpoint: between those on the hosts' own disks; None: none.
        kept_for_good: the first checkpoint at or beyond each multiple of this stays; None: none does.
        replicas: between comparisons of weights that ranks hold alike; None: never.
        replay: between steps that are computed twice; None: never.
        shapes: the window of each sample.
        first_size: ``batch.size``, by which rules of the batch count.
        more_predicted, more_processed: tokens of earlier phases, beyond those that samples of this window make.
    """

    total: int
    last: int
    batches: BatchSchedule
    learning_rate: LearningRate
    widths: Widths
    logging: Interval
    heldout: Interval | None
    tasks: Interval | None
    checkpoint: Interval
    local_checkpoint: Interval | None
    kept_for_good: Interval | None
    replicas: Interval | None
    replay: Interval | None
    shapes: Shapes
    first_size: int
    more_predicted: int = 0
    more_processed: int = 0

    @classmethod
    def of(cls, config: RunConfig, standing: Standing | None = None) -> Timeline:
        """The timeline of a run that stands at ``standing``; None: at its start.

        Raises:
            UserError: where a length makes no sense.
        """
        standing = standing or Standing(0, 0)
        whole, here = Lengths(config), Lengths(config, standing.step, standing.samples)
        total, saving, health = here.total, config.checkpoint, config.health
        return cls(
            total=total,
            last=max(standing.step, here.end),
            batches=here.batches,
            learning_rate=learning_rate(config, whole, here),
            widths=widths_of(config),
            logging=Interval(steps=config.logging.every),
            heldout=whole.interval(config.validation.every) if config.data.valid else None,
            tasks=whole.interval(config.validation.tasks_every or config.validation.every)
            if config.validation.tasks
            else None,
            checkpoint=whole.interval(saving.every),
            local_checkpoint=whole.interval(saving.local_every) if saving.local else None,
            kept_for_good=whole.interval(saving.keep_every) if saving.keep_every else None,
            replicas=whole.interval(health.replicas) if health.replicas else None,
            replay=whole.interval(health.replay) if health.replay else None,
            shapes=whole.shapes,
            first_size=config.batch.size,
            more_predicted=standing.more_predicted,
            more_processed=standing.more_processed,
        )

    def growth(self, step: int) -> float:
        """How many times ``batch.size`` samples step ``step`` takes."""
        return self.batches.size(step) / self.first_size

    @property
    def samples(self) -> int:
        """Samples that are behind the run when this job ends."""
        return self.batches.samples_before(self.last)

    @property
    def settling(self) -> list[Interval]:
        """The events before which the host must know what became of the steps asked for."""
        events = [self.logging, self.heldout, self.tasks, self.checkpoint, self.local_checkpoint]
        return [event for event in events if event is not None]

    def predicted_tokens(self, samples: int) -> int:
        """Tokens that the run's first ``samples`` samples predict."""
        return self.shapes.predicted(samples) + self.more_predicted

    def processed_tokens(self, samples: int) -> int:
        """Tokens that the run's first ``samples`` samples read."""
        return self.shapes.processed(samples) + self.more_processed
