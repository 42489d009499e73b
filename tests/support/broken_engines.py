"""DeepSpeed, wrong on purpose: what a release may bring without a word."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

from megarc.train.checkpoint import save
from megarc.train.engine import build
from megarc.train.engine.muon import Muon


@contextmanager
def broken(how):
    """DeepSpeed is wrong in the way ``how`` (several: joined by " + ") while the block runs; None: as it is."""
    with ExitStack() as stack:
        for way in how.split(" + ") if how else ():
            stack.enter_context(mock.patch.object(*WAYS[way]()))
        yield


def dropped_bucket():
    """ZeRO 1 and 2: of every two buckets one is lost."""
    calls, average = [], DeepSpeedZeroOptimizer.average_tensor

    def lossy(self, tensor, *rest):
        calls.append(1)
        return average(self, tensor.zero_() if len(calls) % 2 == 0 else tensor, *rest)

    return DeepSpeedZeroOptimizer, "average_tensor", lossy


def factor_of_dp():
    """ZeRO 1 and 2: gradients are summed over data ranks where they should be averaged."""
    average = DeepSpeedZeroOptimizer.average_tensor

    def summed(self, tensor, *rest):
        return average(self, tensor.mul_(dist.get_world_size(self.dp_process_group)), *rest)

    return DeepSpeedZeroOptimizer, "average_tensor", summed


def factor_of_dp_3():
    """The same under ZeRO 3."""
    name = "_DeepSpeedZeroOptimizer_Stage3__avg_scatter_grads"
    average = getattr(DeepSpeedZeroOptimizer_Stage3, name)

    def summed(self, parameters, *rest):
        return [part * dist.get_world_size() for part in average(self, parameters, *rest)]

    return DeepSpeedZeroOptimizer_Stage3, name, summed


def skipped_reduce():
    """ZeRO 0, and 1 with bf16: each data rank keeps its own gradients."""
    return DeepSpeedEngine, "allreduce_bucket", lambda self, bucket, *rest, **more: self.flatten(bucket)


def wrong_norm():
    """ZeRO 1 and 2: the norm by which gradients are clipped leaves the second group of parameters out."""

    def of_the_first(self, norm_type=2):
        return torch.as_tensor(
            self.get_grad_norm_direct(self.averaged_gradients[0], self.params_in_partition[0])
        )

    return DeepSpeedZeroOptimizer, "scaled_global_norm", of_the_first


def noise():
    """ZeRO 1 and 2: rank 1 adds something of its own to what it reduces, another thing each time."""
    calls, average = [], DeepSpeedZeroOptimizer.average_tensor

    def noisy(self, tensor, *rest):
        calls.append(1)
        return average(self, tensor.add_(1e-6 * len(calls) * dist.get_rank()), *rest)

    return DeepSpeedZeroOptimizer, "average_tensor", noisy


def halved_muon():
    """Of Muon's updates, half comes back from the ranks that computed them."""
    scatter = Muon._scatter

    def half(self, sharing, full, mine):
        return scatter(self, sharing, {matrix: 0.5 * update for matrix, update in full.items()}, mine)

    return Muon, "_scatter", half


def fp8_on_a_cpu():
    """Not wrong: fp8 products, which a CPU emulates, are not refused there."""
    return build, "no_fp8", lambda device: None


def two_files():
    """Nothing is wrong: a rank writes its checkpoint as if it were large."""
    return save, "_LARGE", 0


WAYS = {
    "fp8 on a CPU": fp8_on_a_cpu,
    "noise": noise,
    "dropped bucket": dropped_bucket,
    "factor of dp": factor_of_dp,
    "factor of dp, stage 3": factor_of_dp_3,
    "skipped all-reduce": skipped_reduce,
    "skipped all-reduce, bf16": skipped_reduce,
    "wrong norm": wrong_norm,
    "halved Muon": halved_muon,
    "two files": two_files,
}
