#!/bin/sh
# Renders the world, trains both models, puts them into the package and measures them: reproduce.sh DATA OUT
set -eu
data=$1
out=$2
here=$(dirname "$0")
world="$here/../world/generate.py"
if [ ! -d "$data/train" ]; then
    python "$world" --split train --seeds 0-399 --views 4 --out "$data/train"
    python "$world" --split val --seeds 0-7 --out "$data/val"
    python "$world" --split test --seeds 0-11 --out "$data/test"
    python "$world" --split val --kind walk --seeds 0-2 --views 30 --out "$data/walk"
fi
python "$here/train_clip.py" --data "$data/train" --out "$out/text" --text-steps 500 --minutes 0
python "$here/pretrain.py" --data "$data/train" --init "$out/text" --out "$out/pretrained" --minutes 20 --per-instance 4
torchrun --nproc_per_node 2 "$here/train_clip.py" --data "$data/train" --init "$out/pretrained" --out "$out/clip" \
    --minutes 6 --threads 1 --crops 72 --windows 4 --lr 3e-4 --fit-head
python "$here/train_dino.py" --data "$data/train" --out "$out/dino" --minutes 20
python "$here/export.py" --clip "$out/clip" --dino "$out/dino"
python "$here/calibrate.py" --scenes "$data"/walk/scene_*
python "$here/evaluate.py" --data "$data/test" --json "$out/metrics.json"
