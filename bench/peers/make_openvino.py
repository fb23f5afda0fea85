"""A GGUF file with 16-bit weights as an OpenVINO model with 4-bit ones:

    python3 make_openvino.py MODEL.gguf FOLDER

OpenVINO's own reader makes the model, NNCF quantizes every matrix to symmetric int4 in groups of 128. What the
reader makes of a Q4_0 file (asymmetric, groups of 32) is slower there, so that the peer would lose by it.
"""
import pathlib
import shutil
import sys
import tempfile

import nncf
import openvino as ov
import openvino_genai as og

GROUP = 128


def main(source, folder):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        work = pathlib.Path(work)
        (work / "model.gguf").symlink_to(source.resolve())
        og.LLMPipeline(work / "model.gguf", "CPU", enable_save_ov_model=True)
        model = ov.Core().read_model(work / "openvino_model.xml")
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP, ratio=1.0, all_layers=True)
        ov.save_model(model, folder / "openvino_model.xml")
        for file in work.glob("*tokenizer*"): shutil.copy(file, folder)


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
