"""Stretches of training: one from start to end, or several where a run goes back before bad steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from megarc.data import Gaps, Stream
from megarc.train.checkpoint import Saver, Standing
from megarc.train.checkpoint.observer import Checkpoints, Due
from megarc.train.checkpoint.resume import Resumed, go_back
from megarc.train.config.run import RunConfig
from megarc.train.engine.engine import Engine
from megarc.train.folder.run_folder import RunFolder
from megarc.train.health import Numbers, Replay, Replicas, Running, Signals, Stragglers
from megarc.train.loop.batch_schedule import BatchSchedule, Interval
from megarc.train.loop.feed import steps
from megarc.train.loop.garbage_collection import GarbageCollection
from megarc.train.loop.learning_rate import learning_rate
from megarc.train.loop.loop import train
from megarc.train.loop.observer import Ending, Moment, Observer
from megarc.train.metrics.metrics import Metrics
from megarc.train.metrics.noise_scale import NoiseScale


@dataclass(frozen=True, slots=True)
class Attempts:
    """All that a stretch of training needs beside where it begins."""

    config: RunConfig
    engine: Engine
    stream: Stream
    heldout: Stream | None
    folder: RunFolder
    levels: list[Due]
    signals: Signals
    watch: list[Observer]

    def until_the_end(self, resumed: Resumed) -> Ending:
        """Trains on from there; as often as it is sent back, from an earlier checkpoint."""
        saver = Saver(self.engine.groups, background=self.config.checkpoint.background)
        while True:
            standing = resumed.standing
            gaps = Gaps.of(standing.skipped, standing.begin)
            batches = self.config.batches().standing_at(standing.step, standing.samples)
            numbers = Numbers(
                self.config.health, batches, gaps, Running(**standing.losses), self.engine.groups.device
            )
            ending = self._train(resumed, saver, gaps, numbers, batches)
            if ending is not Ending.BACK:
                return ending
            assert numbers.bad is not None
            levels = [due.level for due in self.levels]
            back = go_back(self.engine, levels, numbers.bad, gaps, batches)
            resumed = Resumed(back, shared=True)

    def _train(
        self, resumed: Resumed, saver: Saver, gaps: Gaps, numbers: Numbers, batches: BatchSchedule
    ) -> Ending:
        config, groups, standing = self.config, self.engine.groups, resumed.standing

        def standing_of(moment: Moment) -> Standing:
            return replace(
                standing,
                step=moment.step,
                samples=moment.samples,
                skipped=[list(one) for one in gaps.ranges],
                without_update=moment.skipped,
                losses=asdict(numbers.running),
                # Again, for what an earlier megarc began.
                order=self.stream.order,
                sources=self.stream.digests,
                tokenizer=self.stream.tokenizer_digest,
            )

        saved = standing.step if resumed.shared else None
        noise = NoiseScale(config, self.folder, groups)
        stragglers = Stragglers(config.logging.every, config.health.slow)

        def also() -> dict[str, float | None]:
            return {**noise.values(), **stragglers.summary}

        observers: list[Observer] = [
            numbers,
            noise,
            *self._against_damage(),
            stragglers,
            Metrics(config, self.folder, groups, self.heldout, self.stream.bytes_per_token, also, standing),
            self.signals,
            Checkpoints(config, self.folder, saver, self.levels, standing_of, saved),
            GarbageCollection(),
            *self.watch,
        ]
        total, rate = config.last_step(batches), learning_rate(config, batches)
        begin = Moment(standing.step, total, standing.samples, standing.without_update)
        feed = steps(
            self.stream, groups, batches, config.batch.micro_batch, gaps, self.engine.heartbeat,
            first=begin.step, total=total,
        )  # fmt: skip
        return train(self.engine, feed, rate, observers, begin, batches=batches, due=self._due)

    def _due(self, moment: Moment) -> bool:
        """Whether somebody acts on what became of the last steps."""
        config = self.config
        intervals = [Interval(steps=config.logging.every), *(level.every for level in self.levels)]
        if self.heldout is not None:
            intervals.append(config.interval(config.validation.every))
        return any(moment.every(interval) for interval in intervals)

    def _against_damage(self) -> list[Observer]:
        """The comparisons that are asked for; before checkpoints in the list, so that no damage is saved."""
        health = self.config.health
        found: list[Observer] = []
        if health.replicas is not None:
            found.append(Replicas(self.config.interval(health.replicas)))
        if health.replay is not None:
            found.append(Replay(self.config.interval(health.replay), health.tolerance))
        return found
