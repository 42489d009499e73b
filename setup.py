from pathlib import Path

from setuptools import find_packages, setup

DEEPSPEED = "deepspeed==0.19.8"  # pinned: checkpoints ask its optimizers where each parameter's state lies

setup(
    name="megarc",
    version="0.1.0",
    description="Pretraining of language models whose window is [recent | causal], on DeepSpeed",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["megarc", "megarc.*"]),
    package_data={"megarc": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11",
        DEEPSPEED,
        "numpy>=1.26",
        "pydantic>=2.9",
        "PyYAML>=6",
        "rich>=13",
        "matplotlib>=3.8",
        "safetensors>=0.5",
        "orjson>=3.10",
        "zstandard>=0.22",
        "sentencepiece>=0.2.1",
        "tensorboard>=2.16",
        "psutil>=5.9",
    ],
    extras_require={
        "tokenizers": ["tokenizers>=0.20"],
        "parquet": ["pyarrow>=15"],
        "fast": [
            "gigatoken==0.10.0"
        ],  # pinned: compared with SentencePiece and tokenizers at each load, but young
        # SMT-LIB in an interpreter's sandbox, where Debian's z3 is not at hand.
        "smt": ["z3-solver>=4.13"],
        # An MPI without a system package: mpirun for training and packing.
        "mpi": ["mpi4py>=4", "mpich>=4"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.8",
            "mypy>=1.13",
            "import-linter>=2.1",
            "types-PyYAML",
            "z3-solver>=4.13",
            # A peer that reads what we export, and a tier below ours.
            "transformers>=5",
            # Its interpreter tests the attention kernels on a CPU. 3.9 spills 24 bytes a thread in them.
            "triton>=3.6,<3.8; platform_system == 'Linux'",
        ],
    },
)
