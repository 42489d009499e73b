"""Run with megatron-core importable: ``python peer_megatron.py FOLDER``.

For each documents.json in FOLDER's subfolders (a list of lists of ids, and a type) Megatron's builder
writes theirs.bin/.idx, and Megatron's reader reads ours.bin/.idx into seen.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

for told in sorted(Path(sys.argv[1]).glob("*/documents.json")):
    place = told.parent
    tree = json.loads(told.read_text())
    builder = IndexedDatasetBuilder(str(place / "theirs.bin"), dtype=np.dtype(tree["dtype"]).type)
    for document in tree["documents"]:
        builder.add_document(torch.tensor(document, dtype=torch.int64), [len(document)] if document else [])
    builder.finalize(str(place / "theirs.idx"))
    dataset = IndexedDataset(str(place / "ours"))
    seen = [dataset[i].tolist() for i in range(len(dataset))]
    (place / "seen.json").write_text(
        json.dumps({"sequences": seen, "documents": np.asarray(dataset.document_indices).tolist()})
    )
print("done")
