"""Training to the end: the list of observers, and going back to an earlier checkpoint where steps were bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

from megarc.config import to_dict
from megarc.data import Gaps, Stream, Task
from megarc.model import cost_of
from megarc.train.checkpoint import Checkpoints, Course, Due, Peers, Resumed, Saver, Standing, go_back
from megarc.train.config import RunConfig
from megarc.train.engine import Engine
from megarc.train.folder import RunFolder
from megarc.train.health import Numbers, Replay, Replicas, Running, Signals, Stragglers
from megarc.train.loop import Averaging, Ending, GarbageCollection, Moment, Observer, steps, train
from megarc.train.metrics import (
    ExpertLoads,
    Metrics,
    NoiseScale,
    Prediction,
    Profile,
    Profiled,
    SourceCounts,
    Tracked,
    Trackers,
    flat,
    peak_flops,
)
from megarc.train.schedule import Lengths, Timeline, passes


@dataclass(frozen=True, slots=True)
class Trainer:
    """All that training needs beside where it begins."""

    config: RunConfig
    engine: Engine
    stream: Stream
    heldout: Stream | None
    tasks: list[Task]
    folder: RunFolder
    levels: list[Due]
    signals: Signals
    watch: list[Observer]
    start: int  # how many the run has had, with this one
    peers: Peers | None = None

    def fit(self, resumed: Resumed) -> Ending:
        """Trains on from there; as often as it is sent back, from an earlier checkpoint."""
        saver = Saver(self.engine.groups, background=self.config.checkpoint.background, peers=self.peers)
        while True:
            standing = resumed.standing
            gaps = Gaps.of(standing.skipped, standing.begin)
            timeline = Timeline.of(self.config, standing)
            running, device = Running(**standing.losses), self.engine.groups.device
            numbers = Numbers(self.config.health, timeline.batches, gaps, running, device)
            ending = self._train(resumed, saver, gaps, numbers, timeline)
            if ending is not Ending.BACK:
                return ending
            assert numbers.bad is not None
            levels = [due.level for due in self.levels]
            if self.engine.groups.first:
                self.folder.tell("back", step=numbers.bad.last, reason=numbers.bad.why)
            back = go_back(self.engine, levels, numbers.bad, gaps, timeline.batches, self.peers)
            resumed = Resumed(back, shared=True)

    def _train(
        self, resumed: Resumed, saver: Saver, gaps: Gaps, numbers: Numbers, timeline: Timeline
    ) -> Ending:
        config, groups, standing = self.config, self.engine.groups, resumed.standing
        averaging = Averaging(config.average, standing.averaged)

        def standing_of(moment: Moment) -> Standing:
            return replace(
                standing,
                step=moment.step,
                samples=moment.samples,
                skipped=[list(one) for one in gaps.ranges],
                without_update=moment.skipped,
                averaged=averaging.taken,
                losses=asdict(numbers.running),
                # Again, for what an earlier megarc began.
                order=self.stream.order,
                sources=self.stream.digests,
                tokenizer=self.stream.tokenizer_digest,
            )

        saved = standing.step if resumed.shared else None
        # Passes of one micro-batch are no samples of one gradient; gradients of experts that are shared out are of rows
        # of other ranks too.
        every = 0 if passes(config) > 1 or config.parallel.expert > 1 else config.batch.noise_every
        noise = NoiseScale(every, config.batch.micro_batch, config.model.tied, self.folder, groups)
        stragglers = Stragglers(config.logging.every, config.health.slow)
        prediction = Prediction(config.logging.predicted_step)
        counts = SourceCounts(self.stream, gaps)
        loads = ExpertLoads(self.folder, patient=config.checkpoint.on_error == "continue")

        def also() -> dict[str, float | None]:
            own = {**noise.values(), **prediction.values(), **stragglers.summary, **loads.values()}
            return {**own, **counts.values()}

        observers: list[Observer] = [
            numbers,
            averaging,
            noise,
            *self._against_damage(timeline),
            stragglers,
            prediction,
            loads,
            counts,
            self._metrics(timeline, also),
            Trackers(config.logging.trackers, self._tracked, self.folder.metrics, first=groups.first),
            self.signals,
            Checkpoints(
                to_dict(config),
                config.checkpoint.on_error,
                self.folder,
                saver,
                self.levels,
                standing_of,
                saved,
                Course(self.start, standing.step),
            ),
            GarbageCollection(),
            Profile(self._profiled(), self.folder.path / "profile", groups.world.rank, groups.world.size),
            *self.watch,
        ]
        begin = Moment(standing.step, timeline.last, standing.samples, standing.without_update)
        feed = steps(
            self.stream, groups, timeline, config.batch.micro_batch, gaps, self.engine.heartbeat,
            vocabulary=self.config.model.tokens, first=begin.step, total=timeline.last,
            narrowing=self.config.model.narrowing, sharing=self.engine.sharing,
            announced=config.data.store_cache.ahead,
        )  # fmt: skip
        return train(self.engine, feed, timeline, observers, begin)

    def _metrics(self, timeline: Timeline, also: Callable[[], Mapping[str, float | None]]) -> Metrics:
        config, device = self.config, self.engine.groups.device
        return Metrics(
            self.folder,
            self.engine.groups,
            timeline,
            partial(cost_of, config.model),
            peak=config.logging.peak_flops or peak_flops(device, config.precision),
            tensorboard=config.logging.tensorboard,
            console=config.logging.console,
            patient=config.checkpoint.on_error == "continue",
            heldout=self.heldout,
            heldout_windows=config.validation.windows,
            tasks=self.tasks,
            bytes_a_token=self.stream.bytes_per_token,
            extra=also,
        )

    def _profiled(self) -> Profiled | None:
        keys = self.config.profile
        if keys is None:
            return None
        return Profiled(Lengths(self.config).steps(keys.at), keys.steps, keys.ranks, keys.memory)

    def _tracked(self) -> Tracked:
        return Tracked(
            project=self.config.logging.project,
            name=self.folder.path.name,
            identity=self.folder.run or self.folder.path.name,
            config=flat(to_dict(self.config)),
            folder=self.folder.path / "trackers",
        )

    def _against_damage(self, timeline: Timeline) -> list[Observer]:
        """The comparisons that are asked for; before checkpoints in the list, so that no damage is saved."""
        found: list[Observer] = []
        if timeline.replicas is not None:
            found.append(Replicas(timeline.replicas))
        if timeline.replay is not None:
            found.append(Replay(timeline.replay, self.config.health.tolerance))
        return found
