"""The keys of the optimizer and of the loss's extras."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from megarc.config import Config, key


class RatesConfig(Config):
    """Multipliers of the learning rate, by kind of parameter. 0: these parameters stay as they begin."""

    embedding: float = key(1.0, "token embedding (also where the head shares it) and learned positions", ge=0)
    hidden: float = key(1.0, "the blocks' matrices", ge=0)
    readout: float = key(1.0, "the head's matrix, where it is its own (model.tied=false)", ge=0)
    norm: float = key(1.0, "norms' gains, and biases", ge=0)


class DecaysConfig(Config):
    """Multipliers of weight_decay, by kind of parameter, as in ``rates``."""

    embedding: float = key(1.0, "token embedding and learned positions", ge=0)
    hidden: float = key(1.0, "the blocks' matrices", ge=0)
    readout: float = key(1.0, "the head's matrix, where it is its own", ge=0)
    norm: float = key(0.0, "norms' gains, and biases", ge=0)


class MuonConfig(Config):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) on the blocks' matrices; docs/optimizers.md."""

    momentum: float = key(0.95, "decay of the gradient's mean", ge=0, lt=1)
    nesterov: bool = key(True, "the momentum is taken a step ahead")
    iterations: int = key(5, "of Newton-Schulz", ge=1, lt=100)
    scale: Literal["match_adamw", "original"] = key(
        "match_adamw",
        "of an update: 0.2 sqrt(longer side), as large as AdamW's, so that one lr and decay serve both; "
        "original: sqrt(rows / columns), 1 at least",
    )
    equal_rows: bool = key(
        False,
        "the rows of an orthogonalised matrix are scaled to one norm, as in NorMuon (Li et al. 2025, 2510.05491) "
        "without its memory of earlier steps",
    )
    precision: Literal["auto", "fp32", "bf16"] = key(
        "auto", "of the iteration: bf16 on a GPU, fp32 on a CPU, where bf16 is slow", circumstance=True
    )


class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter 2019, 1711.05101), or Muon beside it, on float32 masters."""

    name: Literal["adamw", "muon"] = key(
        "adamw", "muon: the blocks' matrices by Muon; embedding, head and norms by AdamW"
    )
    muon: MuonConfig = key(MuonConfig, "where name is muon")
    library: Literal["torch", "apex", "deepspeed"] = key(
        "torch",
        "whose AdamW: torch's fused one; apex's where installed; DeepSpeed's, compiled at first use (minutes)",
        circumstance=True,
    )
    lr: float = key(1e-3, "peak learning rate", gt=0)
    rates: RatesConfig = key(RatesConfig, "what lr is multiplied by, by kind of parameter")
    beta1: float = key(0.9, "decay of the gradient's mean", ge=0, lt=1)
    beta2: float = key(0.95, "decay of the gradient's mean square", ge=0, lt=1)
    epsilon: float = key(1e-8, "added to the root of the mean square", gt=0)
    weight_decay: float = key(0.1, "share of a weight that a step takes away, times its learning rate", ge=0)
    decays: DecaysConfig = key(DecaysConfig, "what weight_decay is multiplied by, by kind of parameter")
    clip: float = key(1.0, "largest gradient norm; 0: no clipping", ge=0)
    z_loss: float = key(0.0, "weight of log_z^2 beside each row's loss (PaLM: 1e-4)", ge=0)

    @model_validator(mode="after")
    def _muon_is_ours(self) -> OptimizerConfig:
        if self.name == "muon" and self.library != "torch":
            raise ValueError(
                f"optimizer.library {self.library} runs AdamW alone; use optimizer.library=torch with muon"
            )
        if self.name != "muon" and self.muon != MuonConfig():
            raise ValueError(
                f"optimizer.muon is given and optimizer.name is {self.name}; use optimizer.name=muon"
            )
        return self

    @model_validator(mode="after")
    def _library_can(self) -> OptimizerConfig:
        own = self.rates != RatesConfig() or self.decays != DecaysConfig()
        if own and self.library != "torch":
            raise ValueError(
                f"optimizer.rates and optimizer.decays need optimizer.library=torch, and it is {self.library}"
            )
        return self
