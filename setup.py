import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

LM_EVAL = "lm_eval>=0.4.13,<0.5"  # its model class is extended by an adapter of ours
HERE = Path(__file__).resolve().parent
DEEPSPEED = "deepspeed==0.19.8"  # pinned: checkpoints ask its optimizers where each parameter's state lies


def version() -> str:
    """The one place where the version is written is ``megarc/__init__.py``."""
    source = (HERE / "megarc" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


class BuildWithPages(build_py):
    """Puts what stands beside the package in a checkout into the package of a wheel: pages and configurations."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout itself is used
            return
        inside = Path(self.build_lib) / "megarc"
        for name in ("launch", "data_tools", "configs"):
            shutil.rmtree(inside / name, ignore_errors=True)
            shutil.copytree(HERE / name, inside / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "hostfile.example", inside / "launch")


setup(
    name="megarc",
    version=version(),
    description="Pretraining of language models whose window is [recent | causal], on DeepSpeed",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["megarc", "megarc.*"]),
    package_data={"megarc": ["py.typed"]},
    cmdclass={"build_py": BuildWithPages},
    entry_points={"console_scripts": ["megarc = megarc.command:main"]},
    # 3.10 has reached its end of life; DeepSpeed is not tried with 3.14.
    python_requires=">=3.11,<3.14",
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Operating System :: POSIX :: Linux",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
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
        # Texts in object stores: s3://bucket/key, gs://bucket/key
        "s3": ["s3fs>=2026.1"],
        "gcs": ["gcsfs>=2026.1"],
        # logging.trackers
        "wandb": ["wandb>=0.17"],
        "mlflow": ["mlflow-skinny>=3", "sqlalchemy>=2", "alembic>=1.13"],
        "trackio": ["trackio>=0.20"],
        # launch/scaling.py
        "scaling": ["scipy>=1.11"],
        # PPMd, a row of launch/ladder.py
        "ladder": ["pyppmd>=1.1"],
        # SMT-LIB in an interpreter's sandbox, where Debian's z3 is not at hand.
        "smt": ["z3-solver>=4.13"],
        # An MPI without a system package: mpirun for training and packing.
        "mpi": ["mpi4py>=4", "mpich>=4"],
        # Folders of Hugging Face models, and who reads them: docs/exchange.md
        "exchange": [
            "transformers>=5.9",
            "tokenizers>=0.20",
            LM_EVAL,
            "gguf>=0.19",
            "accelerate>=1",
        ],
        # Tab completion: megarc completion bash
        "completion": ["shtab>=1.7"],
        # launch/evaluate.py --tasks with lm-eval's tasks
        "lm-eval": [LM_EVAL],
        # make docs
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"],
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
            "pyppmd>=1.1",
            "scipy>=1.11",
            "setuptools>=77",  # a test builds the wheel
            # A peer that reads what we export, and a tier below ours.
            "transformers>=5",
            # It scores our models through an adapter of ours, on tasks of its own kind.
            LM_EVAL,
            # Its interpreter tests the attention kernels on a CPU. 3.9 spills 24 bytes a thread in them.
            "triton>=3.6,<3.8; platform_system == 'Linux'",
        ],
    },
)
