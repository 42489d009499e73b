"""A rank of the tests of several processes: runs a list of jobs in one process group.

    python worker.py JOBS.json     with RANK, WORLD_SIZE, ... in the environment

A job is one of
    {"do": "pretrain", "config": {...}, "faults": [...], "samples": FOLDER}   the last two: health/fault_injection.py
        "explain_memory": true   the table of memory is printed
        "break": "dropped bucket"   DeepSpeed is wrong while the job runs; see broken_engines.py
        "may_fail": true     a user's error is told, and the next job follows
        "backend": NAME      what torch.compile uses while the job runs; see compilers.py
        "two_files": true    ranks save two files each, as those that hold much do
        "announce": true     the name of its folder is printed before all that it says
        "keep_state": FILE   a copy of state.json as this job leaves it
    {"do": "resave", "config": {...}, "from": F, "to": G}    load F under that configuration, save at once to G
    {"do": "determinism", "config": {...}, "steps": N}       what is said of N steps, and with "break" of wrong ones
    {"do": "steps", "config": {...}, "steps": N}             N steps alone; see few_steps.py
    {"do": "layers", "sequence": true}                       split layers against torch.nn's
    {"do": "write", "config": {...}, "run": R, "to": F}      texts by tensor ranks, of the model in R; ids to F
    {"do": "use", "config": {...}, "model": {...}, "to": F}  scores and texts of a new model on ranks; see using.py
    {"do": "limit file size", "bytes": N}                    stands for a disk that is full
    {"do": "forget", "folder": F}                            a user removes a folder
    {"do": "move", "folder": F, "to": G}                     and brings it back, in place of what lies there
    {"do": "flip", "folder": F, "glob": G}                   a bit of the last file of that pattern there changes
    {"do": "disk again"}                                     and for one with room
    {"do": "limit memory", "bytes": N}                       what this process may still take
"""

import json
import logging
import os
import resource
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from broken_engines import broken
from compilers import compiling_with
from deepspeed.runtime import bf16_optimizer
from few_steps import make_annotated, take_steps
from layers import check
from using import built_model, scores, texts

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import Decoder, Sampling, Writing, write
from megarc.inference.decoder import Opening
from megarc.model import ModelConfig
from megarc.parallel import Groups, TensorParallel, connect, disconnect, meet
from megarc.plan import explained_memory
from megarc.rank_environment import read_rank_environment
from megarc.science import MAKERS
from megarc.tiers import makers
from megarc.train import RunConfig, load_model, open_train, pretrain, resolve, verify_determinism
from megarc.train.checkpoint import Level, Saver, load, open_checkpoint, save
from megarc.train.engine.build import build_engine


def main() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    meeting = meet(read_rank_environment())
    # It collects garbage and prints what it finds, six times in every engine with bf16.
    bf16_optimizer.see_memory_usage = lambda *args, **keys: None
    jobs = json.loads(Path(sys.argv[1]).read_text())
    connections = connect_all(meeting, jobs)
    for job in jobs:
        if job["do"] == "limit file size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["bytes"], job["bytes"]))
            continue
        if job["do"] == "disk again":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            continue
        if job["do"] in ("forget", "flip", "move"):
            if meeting.process.rank == 0:  # the others wait for it in the next job
                spoil(job)
            continue
        if job["do"] == "limit memory":
            limit = psutil.Process().memory_info().vms + job["bytes"]
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            continue
        if job["do"] == "layers":
            check(connect(meeting, "cpu", tensor=meeting.process.world), job["sequence"])
            continue
        config = build(RunConfig, job["config"], "job")
        groups = connections[layout_of(config)]
        os.environ["MEGARC_FAULTS"] = json.dumps(job.get("faults", []))
        os.environ["MEGARC_SAMPLES"] = job.get("samples", "")
        if job["do"] == "steps":
            take_steps(config, groups, job["steps"], config.folder)
        elif job["do"] == "determinism":
            with broken(job.get("break")):
                found = verify_determinism(config, groups, MAKERS, job["steps"])
            if groups.first:
                print(f"-- start {config.folder.name}", *found, sep="\n", flush=True)
        elif job["do"] == "write":
            write_texts(groups, Path(job["run"]), Path(job["to"]))
        elif job["do"] == "use":
            use(build(ModelConfig, job["model"], "job"), config, groups, Path(job["to"]))
        elif job["do"] == "pretrain":
            with patch.object(save, "_LARGE", 0) if job.get("two_files") else nullcontext():
                attempt(config, groups, job)
            if groups.first and "keep_state" in job:
                shutil.copy(config.folder / "state.json", job["keep_state"])
        else:
            resave(config, groups, Path(job["from"]), Path(job["to"]))
    disconnect()


def write_texts(groups: Groups, run: Path, to: Path) -> None:
    saved = load_model(run, tensor=TensorParallel(groups.tensor))
    found = []
    for sampling in (Sampling(temperature=0), Sampling(min_p=0.01)):
        texts = [Writing([65 + n] * (n + 1), 9, n) for n in range(8)]
        list(write(saved.model, texts, saved.config.window.build(), sampling, slots=3))
        found += [text.ids for text in texts]
    if groups.first:
        to.write_text(json.dumps(found))


def use(keys: ModelConfig, config: RunConfig, groups: Groups, to: Path) -> None:
    model = built_model(keys, TensorParallel.of(groups))
    decoder, held = Decoder(model, 2, 21), []
    decoder.begin([Opening(slot, [7, 8, 9] * 3, 4) for slot in range(2)])
    for token in range(12):
        decoder.advance([token, token])
        held += [(10 + token, list(each)) for each in decoder._slots.held]
    found = {"scores": scores(model, config), "texts": texts(model), "held": held}
    if groups.first:
        to.write_text(json.dumps(found))


def spoil(job) -> None:
    if job["do"] == "forget":
        shutil.rmtree(job["folder"])
        return
    if job["do"] == "move":
        shutil.rmtree(job["to"], ignore_errors=True)
        Path(job["folder"]).rename(job["to"])
        return
    victim = sorted(Path(job["folder"]).glob(job["glob"]))[-1]
    content = bytearray(victim.read_bytes())
    content[-5] ^= 1
    victim.write_bytes(content)


def layout_of(config: RunConfig) -> tuple[int, int, bool, int, int]:
    parallel = config.parallel
    return parallel.tensor, parallel.pipeline, parallel.sequence, parallel.context, parallel.expert


def connect_all(meeting, jobs) -> dict[tuple[int, int, bool, int, int], Groups]:
    """The groups of all jobs, before any of them runs.

    torch names a group by its ranks and by how many groups a process has. DeepSpeed makes groups of a tied
    embedding's stages: afterwards ranks have unequal numbers, would give a group unequal names, and wait for
    each other for ever.
    """
    layouts = {layout_of(build(RunConfig, job["config"], "job")) for job in jobs if "config" in job}
    return {
        layout: connect(
            meeting,
            "cpu",
            tensor=layout[0],
            pipeline=layout[1],
            sequence=layout[2],
            context=layout[3],
            expert=layout[4],
        )
        for layout in sorted(layouts)
    }


def attempt(config: RunConfig, groups: Groups, job) -> None:
    """Tells how it ended; where the job allows it, a user's error too, and the next job follows."""
    if job.get("announce"):
        print(f"-- start {config.folder.name}", flush=True)
    explained = explained_memory() if job.get("explain_memory") else nullcontext()
    try:
        with explained as watch, broken(job.get("break")), compiling_with(job.get("backend")):
            ending = pretrain(
                config, groups, makers({**MAKERS, "annotated": make_annotated}),
                lambda *who: f"the table of weights of {who[1:]}",
                [watch] if watch else [],
            )  # fmt: skip
        print(ending)
    except UserError as error:
        if not job.get("may_fail"):
            raise
        print("error:", error)


def resave(config: RunConfig, groups: Groups, source: Path, target: Path) -> None:
    stream = open_train(config, MAKERS)
    config = resolve(config, stream, groups.topology)
    engine = build_engine(config, groups)
    standing = load(open_checkpoint(source), engine)
    target.mkdir(parents=True, exist_ok=True)
    saver = Saver(groups)
    saver.save(engine, standing, {"config": {}}, Level.shared(target, groups, keep=1))
    saver.wait()
    engine.close()


main()
