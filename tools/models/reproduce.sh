#!/bin/bash
# Renders the world, trains both models, puts them into the package and measures them: reproduce.sh DATA OUT
set -eu
data=$1
out=$2
here=$(dirname "$0")
world="$here/../world/generate.py"
if [ ! -d "$data/train" ]; then
    python "$world" --split train --seeds 0-1167 --views 3 --out "$data/train"
    python "$world" --split train --kind rooms --seeds 5000-5699 --views 4 --out "$data/train"
    python "$world" --split varied --seeds 7000-7475 --views 3 --out "$data/train"
    python "$world" --split test --seeds 80-159 --out "$data/test"
    python "$world" --split val --kind walk --seeds 0-8 --views 20 --out "$data/walk"
    python "$world" --split val --kind walk --seeds 9-16 --views 20 --out "$data/judged"
    python "$world" --split val --kind walk --seeds 18-21 --views 20 --out "$data/judged"
fi
train() { torchrun --nproc_per_node 2 "$here/$1" --data "$data/train" --out "$out/$2" --minutes "$3" "${@:4}"; }
python "$here/train_clip.py" --data "$data/train" --out "$out/text" --text-steps 600 --minutes 0
train pretrain.py pretrained 35 --init "$out/text"
train train_clip.py first 36 --init "$out/pretrained" --threads 1 --crops 96 --windows 4 --lr 4e-4 --fit-head
train train_clip.py second 36 --init "$out/first" --threads 1 --crops 112 --windows 4 --lr 4e-4
python "$here/average.py" --clip "$out/first" "$out/second" --out "$out/mean"
train train_clip.py third 46 --init "$out/mean" --threads 1 --crops 96 --windows 6 --lr 4e-4 --colour 2
python "$here/average.py" --clip "$out/mean" "$out/third" "$out/third" --out "$out/rooms"
train train_clip.py fourth 75 --init "$out/rooms" --threads 1 --crops 64 --windows 6 --lr 4e-4 --colour 3
python "$here/average.py" --clip "$out/rooms" "$out/fourth" "$out/fourth" --out "$out/extents"
train train_clip.py fifth 52 --init "$out/extents" --threads 1 --crops 80 --windows 5 --lr 5e-4 --colour 3
python "$here/average.py" --clip "$out/extents" "$out/fifth" "$out/fifth" "$out/fifth" --out "$out/meshes"
train train_clip.py sixth 90 --init "$out/fifth" --threads 1 --crops 80 --windows 5 --lr 7e-4 --colour 3
python "$here/average.py" --clip "$out/meshes" "$out/sixth" --out "$out/clip"
train train_dino.py dino 11
python "$here/export.py" --clip "$out/clip" --dense-sizes 672 1344 --dino "$out/dino"
python "$here/calibrate.py" --scenes "$data"/walk/scene_*
python "$here/calibrate.py" --scenes "$data"/judged/scene_* --judge --json "$out/presence.json"
python "$here/evaluate.py" --data "$data/test" --json "$out/metrics.json"
